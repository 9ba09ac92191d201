"""`assay contracts`: build, deploy, verify and upgrade Assay's contracts (docs/contracts.md).

Exit codes: 0 done, or what was checked holds; 1 it failed or does not hold; 2 wrong command line or
something is not installed. With --json standard output is one JSON document; progress goes to
standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from assay.cli import FAILED, MARKS, OK, print_json, printable
from assay_network.durable import write_durably
from assay_protocol.errors import AssayError

if TYPE_CHECKING:
    from assay_contracts.adapters.backend import Chain
    from assay_contracts.deploy.deployment_record import Record

FOLDER: Final = Path("deployments")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = parser().parse_args(argv)
    try:
        return int(options.run(options))
    except RuntimeError as error:  # the compiler's words, or a package that cannot be fetched
        print(f"assay: {printable(str(error))}", file=sys.stderr)
        return FAILED


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="assay contracts", description="Assay's contracts.")
    verbs = top.add_subparsers(required=True, metavar="VERB")
    built = _verb(verbs, "build", _build, "compile them again")
    built.add_argument("--check", action="store_true", help="compare with what is shipped only")
    deployed = _verb(verbs, "deploy", _deploy, "create what is not there yet; then check all")
    _add_chain(deployed)
    _add_key(deployed)
    deployed.add_argument("--network", choices=("local", "public"), default="public")
    deployed.add_argument("--poster", help="address that posts epochs; the deployer's by default")
    deployed.add_argument("--account", help="the poster's Ed25519 key (hex); --key's by default")
    deployed.add_argument(
        "--set", action="append", default=[], metavar="NAME=NUMBER", help="a parameter"
    )
    checked = _verb(verbs, "verify", _verify, "compare every contract with the record")
    _add_chain(checked)
    checked.add_argument("--deployer", help="address: a local chain's, if there is no record")
    checked.add_argument("--account", help="with --deployer: its Ed25519 key (hex)")
    raised = _verb(verbs, "upgrade", _upgrade, "a new ledger, and what governance has to pass")
    _add_chain(raised)
    _add_key(raised)
    return top


def _verb(verbs: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    one.add_argument("--json", action="store_true")
    one.set_defaults(run=run)
    return one


def _add_chain(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--chain", required=True, metavar="URL|FILE", help="JSON-RPC or chain file")
    verb.add_argument("--records", type=Path, default=FOLDER, help="folder of <chain id>.json")


def _add_key(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--key", type=Path, required=True, help="key file; its wallet pays")


def _build(options: argparse.Namespace) -> int:
    from assay_contracts.deploy import build

    return build.main(["--check"] if options.check else [])


def _deploy(options: argparse.Namespace) -> int:
    return _with_chain(options, _deploy_on)


async def _deploy_on(chain: Chain, options: argparse.Namespace) -> int:
    from assay_contracts.adapters.wallet import Wallet
    from assay_contracts.deploy.deployment import deploy, verify
    from assay_contracts.deploy.deployment_record import Record

    seed = _seed(options)
    wallet = Wallet(_wallet_key(seed))
    path = await _path(chain, options)
    record = _read(path)
    if record is None:
        record = Record(await _plan(chain, options, seed, wallet.address))
    elif options.set or options.poster or options.account:
        raise AssayError("config_invalid", f"{path} says how to deploy; leave out the choices")
    record = await deploy(chain, wallet, record, partial(_keep, path), _progress)
    return _report(options, record, await verify(chain, record))


def _verify(options: argparse.Namespace) -> int:
    return _with_chain(options, _verify_on)


async def _verify_on(chain: Chain, options: argparse.Namespace) -> int:
    from assay_contracts.adapters.wallet import read_address
    from assay_contracts.deploy.deployment import verify
    from assay_contracts.deploy.deployment_record import Record
    from assay_contracts.deploy.plan import Plan

    if options.deployer:
        deployer = read_address(options.deployer)
        account = _hex(options.account or "")
        record = Record(Plan(deployer, account, deployer, await chain.chain_id()))
    else:
        record = await _recorded(chain, options)
    return _report(options, record, await verify(chain, record))


def _upgrade(options: argparse.Namespace) -> int:
    return _with_chain(options, _upgrade_on)


async def _upgrade_on(chain: Chain, options: argparse.Namespace) -> int:
    from assay_contracts.adapters.wallet import Wallet
    from assay_contracts.deploy.ledger_upgrade import upgrade

    record = await _recorded(chain, options)
    wallet = Wallet(_wallet_key(_seed(options)))
    path = await _path(chain, options)
    _, call = await upgrade(chain, wallet, record, partial(_keep, path), _progress)
    proposal = {"ledger": call.ledger, "targets": [call.target], "payloads": [call.payload]}
    if options.json:
        print_json(proposal)
        return OK
    print(f"the new ledger is at 0x{call.ledger.hex()}; for governance to pass:")
    print(f"target  0x{call.target.hex()}\npayload 0x{call.payload.hex()}")
    return OK


# ---- within ----


def _with_chain(
    options: argparse.Namespace, act: Callable[[Chain, argparse.Namespace], Awaitable[int]]
) -> int:
    import trio

    async def run() -> int:
        async with opened_chain(options.chain) as chain:
            return await act(chain, options)

    return trio.run(run)


@asynccontextmanager
async def opened_chain(where: str) -> AsyncIterator[Chain]:
    """The chain behind a URL, or in a file that is only read."""
    if where.startswith(("http://", "https://")):
        from assay_contracts.adapters.rpc_chain import RpcChain

        remote = RpcChain(where)
        try:
            yield remote
        finally:
            await remote.aclose()
        return
    from assay_contracts.adapters.embedded_chain import EmbeddedChain
    from assay_contracts.local.chain import LocalChain

    # A coordinator deploys on its own chain as it starts, and only it adds blocks to that.
    local = EmbeddedChain(LocalChain.open(where, read_only=True))
    try:
        yield local
    finally:
        await local.aclose()


def _seed(options: argparse.Namespace) -> bytes:
    from assay_network.keystore import load_key

    return load_key(options.key)


def _wallet_key(seed: bytes) -> bytes:
    from assay_contracts.local.genesis import poster_key

    return poster_key(seed)


async def _plan(chain: Chain, options: argparse.Namespace, seed: bytes, deployer: bytes) -> Any:
    from assay_contracts.adapters.wallet import read_address
    from assay_contracts.deploy.plan import LOCAL, PUBLIC, Plan, choose
    from assay_protocol.signing import Identity

    account = Identity(seed).public_key
    if options.account:
        account = _hex(options.account)
    return Plan(
        deployer=deployer,
        poster_key=account,
        poster=read_address(options.poster) if options.poster else deployer,
        chain_id=await chain.chain_id(),
        first_nonce=await chain.nonce(deployer),
        parameters=choose(LOCAL if options.network == "local" else PUBLIC, options.set),
    )


async def _path(chain: Chain, options: argparse.Namespace) -> Path:
    folder: Path = options.records
    return folder / f"{await chain.chain_id()}.json"


async def _recorded(chain: Chain, options: argparse.Namespace) -> Record:
    path = await _path(chain, options)
    record = _read(path)
    if record is None:
        raise AssayError("config_invalid", f"there is no record {path}")
    return record


def _keep(path: Path, record: Record) -> None:
    """On disk when this returns; a crash leaves the old record or this one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, record.encode().encode())


def _read(path: Path) -> Record | None:
    from assay_contracts.deploy.deployment_record import read_record

    return read_record(path)


def _report(options: argparse.Namespace, record: Record, report: Any) -> int:
    if options.json:
        addresses = record.plan.addresses
        print_json({"chain_id": record.plan.chain_id, "contracts": addresses} | asdict(report))
        return OK if report.ok else FAILED
    for step in report.steps:
        print(f"{MARKS[step.ok]:<7}  {step.name}: {step.detail}")
    print("the deployment holds" if report.ok else "the deployment DOES NOT HOLD")
    return OK if report.ok else FAILED


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise AssayError("config_invalid", f"not hex: {text[:80]!r}") from None
