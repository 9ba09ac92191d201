"""`assay governance list|show|propose|vote|execute`: what those who earned credit decide.

Everything is read from the chain; leaf files, which prove a vote's weight, come from a coordinator
and are held against the chain. Exit codes: 0 done; 1 it failed or was refused; 2 wrong command line
or something is not installed. With --json standard output is one JSON document; progress goes to
standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from assay.cli import OK, print_json, printable
from assay_protocol.errors import AssayError

if TYPE_CHECKING:
    from assay_contracts.govern.ballots import Ballot
    from assay_contracts.govern.governance import Governance, Proposal, Text
    from assay_contracts.govern.proposals import Action, Wish
    from assay_protocol.leaf_file import LeafFile

LISTED_MAX: Final = 32  # newest proposals that `list` shows
MICRO: Final = 1_000_000
Act = Callable[["Governance", argparse.Namespace], Awaitable[int]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = parser().parse_args(argv)
    act: Act = options.act
    return _with_governance(options, act)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="assay governance", description="What is decided by vote.")
    verbs = top.add_subparsers(required=True, metavar="VERB")
    _verb(verbs, "list", _list, "the newest proposals")
    _add_number(_verb(verbs, "show", _show, "one proposal, and what it would do"))
    proposed = _verb(verbs, "propose", _propose, "put changes to the vote")
    _add_wishes(proposed)
    _add_voter(proposed)
    voted = _verb(verbs, "vote", _vote, "vote with all that a key earned in the span")
    _add_number(voted)
    voted.add_argument("support", choices=("for", "against", "abstain"))
    _add_voter(voted)
    done = _verb(verbs, "execute", _execute, "queue what passed; execute what waited long enough")
    _add_number(done)
    done.add_argument("--key", type=Path, required=True, help="key file; its wallet sends")
    return top


def _verb(verbs: Any, name: str, act: Act, text: str) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    one.add_argument("--chain", required=True, metavar="URL|FILE", help="JSON-RPC or chain file")
    where = os.environ.get("ASSAY_GOVERNANCE")
    one.add_argument("--governance", metavar="ADDRESS", default=where)
    one.add_argument("--record", type=Path, help="of the deployment, instead of the address")
    one.add_argument("--json", action="store_true")
    one.set_defaults(act=act)
    return one


def _add_number(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("number", type=int, metavar="PROPOSAL")


def _add_voter(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--key", type=Path, required=True, help="key file of who earned the credit")
    verb.add_argument("--coordinator", default=os.environ.get("ASSAY_COORDINATOR"))


def _add_wishes(verb: argparse.ArgumentParser) -> None:
    key: Any = {"action": "append", "default": [], "metavar": "MODEL"}
    verb.add_argument("--allow", **key, help="it may be served")
    verb.add_argument("--deny", **key, help="it may not be served")
    verb.add_argument("--unlist", **key, help="say nothing of it any more")
    verb.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="MODEL=ACCOUNT:ROLE:BPS",
        help="who shares in its jobs; replaces the shares there are",
    )
    verb.add_argument("--no-split", **key, help="nobody shares in its jobs")
    models = verb.add_mutually_exclusive_group()
    models.add_argument("--open", dest="open", action="store_true", default=None)
    models.add_argument("--closed", dest="open", action="store_false", help="listed models only")
    policy = verb.add_mutually_exclusive_group()
    policy.add_argument("--moderation", type=Path, metavar="FILE", help="a signed policy")
    policy.add_argument("--no-moderation", type=int, metavar="VERSION", help="take it away")
    verb.add_argument("--min-bond", type=int, metavar="MICROCREDITS")
    verb.add_argument("--holders", type=int, help="nodes that must hold an epoch's data")
    verb.add_argument("--ledger", metavar="ADDRESS", help="the new ledger, after an upgrade")
    verb.add_argument("--models", metavar="ADDRESS", help="of the ModelRegistry, if no --record")
    verb.add_argument("--description", default="", help="for those who vote")


# ---- the commands ----


async def _list(governance: Governance, options: argparse.Namespace) -> int:
    count = await governance.count()
    first = max(1, count - LISTED_MAX + 1)
    found = [await governance.proposal(number) for number in range(first, count + 1)]
    if options.json:
        print_json({"proposals": [asdict(one) for one in found]})
        return OK
    for one in found:
        print(_line(one))
    if not found:
        print("nothing was proposed yet")
    return OK


async def _show(governance: Governance, options: argparse.Namespace) -> int:
    proposal = await governance.proposal(options.number)
    text = await governance.text(proposal)
    _print_proposal(proposal, text, options)
    return OK


async def _propose(governance: Governance, options: argparse.Namespace) -> int:
    from assay_contracts.adapters.offers import Call
    from assay_contracts.adapters.transact import transact

    wallet, account = _wallet(options)
    await _check_payee(governance, wallet, account)
    wish = wish_of(options)
    addresses = await _addresses(governance, options)
    actions = [
        (addresses[one.contract], one) for one in await _actions(governance, wish, addresses)
    ]
    ledger, span = await governance.ledger(), await governance.next_span()
    found = await _ballots(governance, options, account, ledger, span)
    best = max(found, key=lambda one: one.weight)
    data = governance.propose_call(actions, options.description, best)
    await transact(governance.chain, wallet, Call(governance.address, data))
    number = await governance.count()
    proposal = await governance.proposal(number)
    _print_proposal(proposal, await governance.text(proposal), options)
    return OK


async def _vote(governance: Governance, options: argparse.Namespace) -> int:
    from assay_contracts.adapters.offers import Call
    from assay_contracts.adapters.transact import transact

    wallet, account = _wallet(options)
    await _check_payee(governance, wallet, account)
    proposal = await governance.proposal(options.number)
    if proposal.state != "active":
        raise AssayError("config_invalid", f"{_line(proposal)}: there is no vote now")
    span = (proposal.epoch_now, proposal.epoch_then)
    found = await _ballots(governance, options, account, proposal.ledger, span)
    weight = 0
    for ballot in found:
        if await governance.has_voted(proposal.id, ballot):
            _progress(f"role {ballot.now.leaf.role} has voted before")
            continue
        data = governance.vote_call(proposal.id, options.support, ballot)
        await transact(governance.chain, wallet, Call(governance.address, data))
        weight += ballot.weight
    told = await governance.proposal(proposal.id)
    if options.json:
        print_json({"weight": weight} | asdict(told))
    else:
        print(f"voted {options.support} with {_credits(weight)}\n{_line(told)}")
    return OK


async def _execute(governance: Governance, options: argparse.Namespace) -> int:
    """The next step there is: into the timelock, or out of it."""
    from assay_contracts.adapters.offers import Call
    from assay_contracts.adapters.transact import transact

    wallet, _ = _wallet(options)
    proposal = await governance.proposal(options.number)
    text = await governance.text(proposal)
    now = (await governance.chain.head()).timestamp
    if proposal.state == "succeeded":
        data = governance.queue_call(proposal.id, text)
    elif proposal.state == "queued" and max(now, int(time.time())) < proposal.executable_from:
        wait = proposal.executable_from
        raise AssayError("config_invalid", f"it can be executed from {_at(wait)}")
    elif proposal.state == "queued":
        data = governance.execute_call(proposal.id, text)
    else:
        raise AssayError("config_invalid", f"{_line(proposal)}: nothing is to be done")
    await transact(governance.chain, wallet, Call(governance.address, data))
    _print_proposal(await governance.proposal(proposal.id), text, options)
    return OK


# ---- what they need ----


def _with_governance(options: argparse.Namespace, act: Act) -> int:
    import trio

    from assay.contracts_command import opened_chain
    from assay_contracts.govern.governance import Governance

    async def run() -> int:
        async with opened_chain(options.chain) as chain:
            governance = Governance(chain, _recorded(options, "Governance", options.governance))
            return await act(governance, options)

    return trio.run(run)


def _recorded(options: argparse.Namespace, contract: str, address: str | None) -> bytes:
    """Where a contract is: as written, or as the record says."""
    from assay_contracts.adapters.wallet import read_address
    from assay_contracts.deploy.deployment_record import read_record

    if address:
        return read_address(address)
    record = read_record(options.record) if options.record else None
    if record is None:
        raise AssayError("config_invalid", f"give the address of {contract}, or --record FILE")
    return record.plan.addresses[contract]


async def _addresses(governance: Governance, options: argparse.Namespace) -> dict[str, bytes]:
    """Of the contracts that proposals call."""
    terms = await governance.terms()
    models = _recorded(options, "ModelRegistry", options.models)
    return {
        "CreditToken": terms.token,
        "NodeRegistry": terms.registry,
        "CreditLedger": await governance.ledger(),
        "ModelRegistry": models,
    }


def _wallet(options: argparse.Namespace) -> Any:
    """The wallet of the key, and the account that it is to the network."""
    from assay_contracts.adapters.wallet import Wallet
    from assay_network.keystore import load_key
    from assay_protocol.signing import Identity

    seed = load_key(options.key)
    return Wallet.of_seed(seed), Identity(seed).public_key


async def _check_payee(governance: Governance, wallet: Any, account: bytes) -> None:
    """Raises AssayError("forbidden") if others, or nobody yet, vote for the account."""
    payee = await governance.payee(account)
    if payee == wallet.address:
        return
    if any(payee):
        raise AssayError("forbidden", f"0x{payee.hex()} gets this account's pay, and votes for it")
    raise AssayError("forbidden", "nobody is bound to this account: `assay credit claim` does it")


async def _actions(
    governance: Governance, wish: Wish, addresses: dict[str, bytes]
) -> tuple[Action, ...]:
    from assay_contracts.govern.model_registry import read_entries, read_open
    from assay_contracts.govern.proposals import actions_of

    block, registry = (await governance.chain.head()).number, addresses["ModelRegistry"]
    entries = await read_entries(governance.chain, registry, block)
    return actions_of(wish, entries, is_open=await read_open(governance.chain, registry, block))


async def _ballots(
    governance: Governance,
    options: argparse.Namespace,
    account: bytes,
    ledger: bytes,
    span: tuple[int, int],
) -> tuple[Ballot, ...]:
    """What speaks for the account between two epochs, held against the chain."""
    import trio

    from assay_contracts.govern.ballots import ballots

    newer, older = await trio.to_thread.run_sync(_leaf_files, options, span)
    found = await trio.to_thread.run_sync(ballots, account, newer, older)
    if not found:
        text = f"{account.hex()} earned nothing between the epochs {span[1]} and {span[0]}"
        raise AssayError("config_invalid", text)
    for epoch, proven in ((span[0], found[0].now), (span[1], found[0].before)):
        if proven is not None:
            await governance.check(ledger, epoch, proven)
    return found


def _leaf_files(
    options: argparse.Namespace, span: tuple[int, int]
) -> tuple[LeafFile, LeafFile | None]:
    """As anybody: the key's own session belongs to its node."""
    from assay.chat_command import connect
    from assay_protocol.leaf_file import LeafFile

    anybody = argparse.Namespace(coordinator=options.coordinator, key=None)
    newer, older = span
    with connect(anybody) as client:
        _progress(f"fetching the leaves of epoch {newer}")
        first = LeafFile(client.leaf_file(newer))
        return first, LeafFile(client.leaf_file(older)) if older else None


def wish_of(options: argparse.Namespace) -> Wish:
    """What the words of `propose` ask for. Raises AssayError("config_invalid", "rules_invalid")."""
    from assay_contracts.adapters.wallet import read_address
    from assay_contracts.govern.proposals import Wish, parse_key, parse_split

    splits: dict[bytes, Any] = {parse_key(text): () for text in options.no_split}
    for text in options.split:
        model, share = parse_split(text)
        splits[model] = (*splits.get(model, ()), share)
    wish = Wish(
        allow=tuple(map(parse_key, options.allow)),
        deny=tuple(map(parse_key, options.deny)),
        unlist=tuple(map(parse_key, options.unlist)),
        splits=splits,
        open=options.open,
        min_bond=options.min_bond,
        holders=options.holders,
        minter=read_address(options.ledger) if options.ledger else None,
    )
    if options.no_moderation is not None:
        return replace(wish, moderation=(bytes(32), options.no_moderation))
    if options.moderation is None:
        return wish
    from assay_protocol.moderation import policy_digest, unpack_policy

    _, blob, policy = unpack_policy(options.moderation.read_bytes())
    return replace(wish, moderation=(policy_digest(blob), policy.version))


# ---- what is told ----


def _print_proposal(proposal: Proposal, text: Text, options: argparse.Namespace) -> None:
    from assay_contracts.govern.proposals import read_action

    actions = [
        str(read_action(payload) or f"call of {len(payload)} bytes") for payload in text.payloads
    ]
    if options.json:
        print_json(asdict(proposal) | asdict(text) | {"actions": actions})
        return
    print(_line(proposal))
    for target, action in zip(text.targets, actions, strict=True):
        print(f"  {printable(action)} (0x{target.hex()})")
    if text.description:
        print(f"  said of it: {printable(text.description)!r}")
    print(
        f"  proposed by 0x{text.proposer.hex()}; earnings after epoch {proposal.epoch_then} to"
        f" epoch {proposal.epoch_now} vote, {_credits(proposal.earned)} in all"
    )
    print(f"  vote {_at(proposal.starts_at)} to {_at(proposal.ends_at)}")
    if proposal.executable_from > 1:
        print(f"  can be executed from {_at(proposal.executable_from)}")


def _line(one: Proposal) -> str:
    present = one.yes + one.abstained
    return (
        f"proposal {one.id} is {one.state}: {_credits(one.yes)} for, {_credits(one.no)} against,"
        f" {_credits(one.abstained)} abstained; {_credits(present)} of a quorum of"
        f" {_credits(one.quorum)}"
    )


def _at(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _credits(amount: int) -> str:
    return f"{amount // MICRO}.{amount % MICRO:06}"


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
