"""The `assay` command: one umbrella over everything, quick to start.

Exit codes: 0 done, and what was checked holds; 1 it failed or does not hold; 2 the command line is
wrong or something it needs is not installed. With --json, standard output is JSON and nothing else.
Parts that need an extra are imported when used, and the message names the extra when it is absent.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from assay_protocol.errors import AssayError
from assay_protocol.extras import missing_text
from assay_protocol.levels import VERIFY_LEVELS

OK, FAILED, USAGE = 0, 1, 2
MARKS: Final = {True: "ok", False: "FAILED", None: "not checked"}
_STEERING: Final = frozenset({"Cc", "Cs"})
_HAND_OVERS: Final = {
    "node": ("assay_node.cli", "node"),
    "selfcheck": ("assay_node.cli", "node"),
    "coordinator": ("assay_coordinator.cli", "coordinator"),
    "gateway": ("assay.gateway.command", "gateway"),
    "governance": ("assay.governance_command", "contracts"),
    "simnet": ("assay_simnet.cli", "simnet"),
    "chain": ("assay_contracts.follow.chain_command", "contracts"),
    "contracts": ("assay.contracts_command", "contracts"),
    "init": ("assay.init_command", "p2p"),
    "top": ("assay.top.command", "top"),
}


class MissingExtra(Exception):
    """A command needs an extra that is not installed."""

    def __init__(self, extra: str, module: str) -> None:
        super().__init__(missing_text(extra, module))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments and arguments[0] in _HAND_OVERS:
            own = arguments[:1] if arguments[0] == "selfcheck" else []  # a verb of `node`
            return hand_over(arguments[0], own + arguments[1:])
        options = parser().parse_args(arguments)
        run: Any = options.run
        return int(run(options))
    except AssayError as error:
        print(f"assay: {printable(str(error))}", file=sys.stderr)
        return FAILED
    except MissingExtra as error:
        print(f"assay: {error}", file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"assay: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return FAILED


def parser() -> argparse.ArgumentParser:
    """The command line of the commands that are not handed over."""
    top = argparse.ArgumentParser(
        prog="assay",
        description="Use the Assay network.",
        epilog="also: assay init|gateway|governance|node|coordinator|chain|contracts|simnet "
        "|selfcheck|top ... Exit codes: 0 it holds, 1 it failed, 2 wrong command or missing extra.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chat = commands.add_parser("chat", help="talk to a model; a prompt or a pipe asks once")
    _add_job_options(chat)
    chat.add_argument("--receipt", action="store_true", help="say what speaks for each answer")
    chat.set_defaults(run=_run("assay.chat_command", "chat", "p2p"))
    job = commands.add_parser("job", help="run single jobs").add_subparsers(
        dest="verb", required=True, metavar="VERB"
    )
    submit = job.add_parser("submit", help="run one job and keep its receipt")
    _add_job_options(submit)
    submit.add_argument("--raw", action="store_true", help="plain text, without a chat template")
    submit.add_argument("--receipt", type=Path, help="file to write the receipt records to")
    submit.set_defaults(run=_run("assay.chat_command", "submit", "p2p"))
    _add_embed(commands)
    check = commands.add_parser("verify", help="check a receipt file offline")
    check.add_argument("file", type=Path)
    check.add_argument("--coordinator", help="public key (hex) the tickets must be signed with")
    check.add_argument("--card", type=Path, help="the model's card, to check grammars against")
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=_run("assay.verify_command", "verify_file", ""))
    _add_receipt(commands)
    _add_audit(commands)
    _add_probe(commands)
    for name, text in (("network", "nodes and totals"), ("account", "your balances")):
        one = commands.add_parser(name, help=text)
        _add_coordinator_options(one)
        one.set_defaults(run=_run("assay.chat_command", name, "p2p"))
    _add_credit(commands)
    _add_cost(commands)
    complete = commands.add_parser("completion", help="a script for your shell to complete by")
    complete.add_argument("shell", choices=("bash", "zsh"))
    complete.set_defaults(run=_completion)
    return top


def _add_embed(commands: Any) -> None:
    embed = commands.add_parser("embed", help="vectors of texts: of each argument, or each line")
    _add_coordinator_options(embed)
    embed.add_argument("text", nargs="*", help="else the lines of --file or of standard input")
    embed.add_argument("--file", type=Path, help="a text a line")
    embed.add_argument("--model", help="one that embeds")
    levels = tuple(level for level in VERIFY_LEVELS if level != "quorum")  # it compares tokens
    embed.add_argument("--verify", choices=levels, default="sample", help="now: wait for audits")
    embed.add_argument("--format", choices=("jsonl", "npy"), default="jsonl")
    embed.add_argument("--out", type=Path, help="a new file for the vectors")
    embed.add_argument("--receipt", type=Path, help="file to write the receipt records to")
    embed.set_defaults(run=_run("assay.embed_command", "embed", "p2p"))


def _add_receipt(commands: Any) -> None:
    receipt = commands.add_parser("receipt", help="what speaks for answers you kept receipts of")
    verbs = receipt.add_subparsers(dest="verb", required=True, metavar="VERB")
    shown = verbs.add_parser("show", help="the node's record and stake, in sentences")
    check = verbs.add_parser("verify", help="check offline; with --model, replay every token")
    check.add_argument("--coordinator", help="public key (hex) the tickets must be signed with")
    check.add_argument("--model", type=Path, help="the model's GGUF file, to replay with")
    check.add_argument("--projector", type=Path, help="its other file, of one that reads images")
    check.add_argument("--threads", type=int, help="for the replay; all cores but one by default")
    for verb, function in ((shown, "show"), (check, "verify_file")):
        verb.add_argument("file", type=Path)
        verb.add_argument("--json", action="store_true")
        verb.set_defaults(run=_run("assay.receipt_command", function, ""))


def _add_audit(commands: Any) -> None:
    audit = commands.add_parser("audit", help="check how answers were audited")
    verbs = audit.add_subparsers(dest="verb", required=True, metavar="VERB")
    show = verbs.add_parser("show", help="who found what about an answer of yours")
    _add_coordinator_options(show)
    show.add_argument("ticket", help="the ticket (hex), as receipts name it")
    show.add_argument("--file", type=Path, help="a saved record instead of the coordinator's")
    show.add_argument("--coordinator-key", help="public key (hex) tickets must be signed with")
    show.add_argument("--save", type=Path, help="file to write the record to")
    show.set_defaults(run=_run("assay.audit_show", "show", "p2p"))
    again = verbs.add_parser("recheck", help="draw rounds of the audit lottery again, and compare")
    _add_coordinator_options(again)
    again.add_argument("round", nargs="?", type=int, help="the round's number, from 1")
    again.add_argument("--rounds", metavar="A..[B]", help="from A to B; records need A = 1")
    again.add_argument("--chain", required=True, help="JSON-RPC URL or local chain file")
    again.add_argument("--poster", help="address (hex) the operator published")
    again.add_argument(
        "--verdicts", action="store_true", help="fetch and check what each audit rests on, too"
    )
    again.add_argument("--verbose", action="store_true", help="every step, not only what fails")
    again.set_defaults(run=_run("assay.audit_command", "recheck", "contracts"))


def _add_probe(commands: Any) -> None:
    probe = commands.add_parser("probe", help="for operators: ask like a client, have it audited")
    probe.add_argument("--coordinator", default=os.environ.get("ASSAY_COORDINATOR"))
    probe.add_argument("--json", action="store_true")
    probe.add_argument("--pool", type=Path, required=True, help="JSON lines of unused prompts")
    probe.add_argument("--shapes", type=Path, required=True, help="from `coordinator shapes`")
    probe.add_argument("--keys", type=Path, required=True, help="folder of the probes' keys")
    probe.add_argument("--share", type=float, default=0.02, help="of all accounts, probes")
    probe.add_argument("--model")
    probe.set_defaults(run=_run("assay.probe_command", "probe", "p2p"))


def _add_credit(commands: Any) -> None:
    credit = commands.add_parser("credit", help="check and claim what an account has earned")
    verbs = credit.add_subparsers(dest="verb", required=True, metavar="VERB")
    texts = {
        "verify": "walk receipts to the root on chain",
        "show": "print it",
        "claim": "have it paid out",
    }
    for name, text in texts.items():
        verb = verbs.add_parser(name, help=text)
        _add_coordinator_options(verb)
        verb.add_argument("--bundle", type=Path, help="a bundle file instead of the coordinator's")
        verb.add_argument("--save", type=Path, help="file to keep the coordinator's bundle in")
        verb.add_argument("--account", help="public key (hex); your node's, or yours, by default")
        verb.add_argument("--node-data", metavar="DIR", help="a node's data, with key and receipts")
        needed = name != "show"
        verb.add_argument("--chain", required=needed, help="JSON-RPC URL or local chain file")
        if needed:
            verb.add_argument("--ledger", help="address (hex) the operator published")
        if name == "verify":
            verb.add_argument("--receipts", type=Path, help="as `node credit receipts` prints them")
            whole = "fail if a receipt of yours is not in this epoch"
            verb.add_argument("--whole", action="store_true", help=whole)
        if name == "claim":
            verb.add_argument("--payee", help="address (hex) to be paid; the node's wallet if not")
        verb.set_defaults(run=_run("assay.credit_command", name, "contracts"))


def _add_cost(commands: Any) -> None:
    cost = commands.add_parser("cost", help="what was spent, by model, beside an upstream's price")
    cost.add_argument("--data", metavar="DIR", help="a gateway's data_dir")
    cost.add_argument("--receipts", type=Path, action="append", help="a file of receipt records")
    cost.add_argument("--routes", type=Path, help="the gateway's routes, for prices to compare")
    cost.add_argument("--owner", action="store_true", help="tell the gateway's keys apart")
    cost.add_argument("--keys", type=Path, help="the gateway's keys, for their budgets")
    cost.add_argument("--days", type=_days, default=0, help="of the last so many, today included")
    cost.add_argument("--json", action="store_true")
    cost.set_defaults(run=_run("assay.cost_command", "cost", "p2p"))


def _days(text: str) -> int:
    days = int(text)
    if days < 1:
        raise ValueError(text)
    return days


def _add_coordinator_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--coordinator", default=os.environ.get("ASSAY_COORDINATOR"))
    command.add_argument("--key", type=Path, default=os.environ.get("ASSAY_KEY"))
    command.add_argument("--json", action="store_true")


def _add_job_options(command: argparse.ArgumentParser) -> None:
    _add_coordinator_options(command)
    command.add_argument("prompt", nargs="*", help="asked once; else read from the pipe")
    command.add_argument(
        "--image",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a picture to show with the (first) prompt; may be repeated",
    )
    command.add_argument("--model")
    command.add_argument("--max-tokens", type=int)
    command.add_argument("--temperature", type=float, default=0.8)
    command.add_argument(
        "--region",
        action="append",
        default=[],
        help="only nodes that say they are there: eu, eu-de; may be repeated",
    )
    command.add_argument(
        "--reasoning", action="store_true", help="show what the model thinks first, on stderr"
    )
    command.add_argument(
        "--verify",
        choices=VERIFY_LEVELS,
        default="sample",
        help="now: wait until an audit passed; quorum: two operators' nodes must agree",
    )


def _run(module: str, function: str, extra: str) -> Any:
    return lambda options: getattr(load(module, extra), function)(options)


def hand_over(name: str, arguments: list[str]) -> int:
    """Run another program's command; raises MissingExtra if it is not installed."""
    module, extra = _HAND_OVERS[name]
    return int(load(module, extra).main(arguments) or OK)


def _completion(options: argparse.Namespace) -> int:
    from assay.completion import script

    parsers: dict[str, argparse.ArgumentParser | None] = {"": parser()}
    for name, (module, extra) in _HAND_OVERS.items():
        if name == "selfcheck":  # its flags are below `node`
            parsers[name] = None
            continue
        try:
            parsers[name] = getattr(load(module, extra), "parser", lambda: None)()
        except MissingExtra:
            parsers[name] = None
    print(script(options.shell, parsers), end="")
    return OK


def load(module: str, extra: str) -> Any:
    """Import our own `module`; what it cannot find belongs to `extra`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(extra or "all", error.name or module) from error


def key_of(text: str) -> bytes:
    """A 32-byte public key written as hex; raises AssayError("config_invalid")."""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise AssayError("config_invalid", f"not a public key of 64 hex digits: {text!r}")
    return key


def printable(text: str) -> str:
    """`text` of a peer without the characters that steer a terminal: it could rewrite what stands
    above, or fill the clipboard. Tabs and newlines stay."""
    return "".join(c for c in text if c in "\t\n" or unicodedata.category(c) not in _STEERING)


def print_json(value: object) -> None:
    """One JSON document on standard output; bytes as hex."""
    print(json.dumps(value, default=lambda item: item.hex(), ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
