"""`simnet`: run scenarios of the whole network on one machine.

Exit codes: 0 all that was promised happened, 1 something did not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from assay_protocol.extras import report_missing

NODES_MAX: Final = 8  # of `simnet up`, on a machine of one's own; each holds the model once


def main(argv: list[str] | None = None) -> int:
    """The console script."""
    try:
        from assay_simnet.commands import act

        args = parser().parse_args(argv)
    except ModuleNotFoundError as error:
        return report_missing("simnet", "simnet", error)
    return act(args)


def parser() -> argparse.ArgumentParser:
    """All verbs and flags. Raises ModuleNotFoundError where the extra is not installed."""
    from assay_simnet.commands import add_verbs
    from assay_simnet.policy_study import add_comparison
    from assay_simnet.study import add_studies

    top = argparse.ArgumentParser(prog="simnet", description=__doc__.splitlines()[0])
    verbs = top.add_subparsers(required=True, metavar="VERB")
    add_verbs(verbs)
    add_studies(verbs)
    add_comparison(verbs)
    text = "real processes, a real model: chats, a cheat caught, a node killed, credit verified"
    demo = verbs.add_parser("demo", help=text, description=text)
    demo.add_argument("--report", type=Path, default=Path("demo-report.json"))
    demo.add_argument("--keep", type=Path, help="keep logs and databases in this folder")
    demo.set_defaults(act=_demo)
    text = "a coordinator, nodes with a real model and a gateway, here, until Ctrl-C"
    up = verbs.add_parser("up", help=text, description=text)
    up.add_argument("--listen", default="127.0.0.1:8000", metavar="HOST:PORT", help="the gateway's")
    up.add_argument("--nodes", type=_nodes, default=2, help=f"1 to {NODES_MAX}; one audits nobody")
    up.add_argument("--keep", type=Path, metavar="FOLDER", help="keys, books, logs; go on there")
    up.add_argument("--json", action="store_true", help="JSON lines for programs")
    up.set_defaults(act=_up)
    return top


def _nodes(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= NODES_MAX):
        raise argparse.ArgumentTypeError(f"a number from 1 to {NODES_MAX}, not {text!r}")
    return int(text)


def _demo(args: argparse.Namespace) -> int:
    try:
        from assay_simnet.demo import run_demo
    except ModuleNotFoundError as error:
        return report_missing("simnet", "all", error)
    return run_demo(args.report, args.keep)


def _up(args: argparse.Namespace) -> int:
    try:
        from assay_simnet.up_command import up_command
    except ModuleNotFoundError as error:
        return report_missing("simnet", "all", error)
    return up_command(args)
