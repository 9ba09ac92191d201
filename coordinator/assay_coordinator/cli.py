"""`coordinator`: run one, and act on it as its operator.

Exit codes: 0 done, 1 an operating error (printed as `code: message`), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from assay_protocol.errors import AssayError
from assay_protocol.extras import report_missing

if TYPE_CHECKING:
    from assay_coordinator.adapters.anchor import RemoteChain
    from assay_network.http_guard import Guard

DEFAULT_DATA: Final = Path("~/.local/share/assay/coordinator")
DEFAULT_LISTEN: Final = "/ip4/127.0.0.1/tcp/4600"
ALWAYS: Final = "its output always is"


def main(argv: list[str] | None = None) -> int:
    """The console script."""
    args = parser().parse_args(argv)
    try:
        return int(args.run(args))
    except AssayError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except ModuleNotFoundError as error:
        return report_missing("coordinator", "coordinator", error)
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """All commands and flags."""
    top = argparse.ArgumentParser(prog="coordinator", description=__doc__.splitlines()[0])
    verbs = top.add_subparsers(required=True, metavar="VERB")
    start = _verb(verbs, "start", _start, "run a coordinator")
    start.add_argument("--listen", action="append", metavar="MULTIADDR", help=DEFAULT_LISTEN)
    start.add_argument("--database", help="SQLAlchemy URL; default: SQLite in the data directory")
    start.add_argument("--catalogue", action="append", type=Path, default=[], metavar="CARD|DIR")
    start.add_argument("--rpc", type=_rpc, metavar="HOST:PORT", help="serve the chain's JSON-RPC")
    _add_http(start)
    start.add_argument("--otlp", type=_otlp, metavar="URL", help="send traces there")
    start.add_argument("--json", action="store_true", help=ALWAYS)
    _add_remote_chain(start)
    start.add_argument("--policy", type=Path, metavar="TOML")
    start.add_argument("--operator", action="append", default=[], metavar="KEY")
    start.add_argument("--faucet", type=int, metavar="MICROCREDITS")
    start.add_argument(
        "--calibration",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="a table of honest noise from `coordinator calibrate`; older ones too, for open jobs",
    )
    start.add_argument(
        "--moderation", type=Path, metavar="FILE", help="the policy whose sha256 is on the chain"
    )
    start.add_argument(
        "--contracts",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="a parameter of the contracts, for the first start (docs/contracts.md)",
    )
    _add_moderation(verbs)
    init = _verb(verbs, "init", _init, "write a key and a policy to begin with")
    init.add_argument("--faucet", type=int, metavar="MICROCREDITS")
    keys = _verb(verbs, "keys", _keys, "show the coordinator's public key")
    keys.add_argument("--poster", action="store_true", help="and the address that posts epochs")
    check = _verb(verbs, "check", _check, "check the books of a stopped coordinator's database")
    for one in (init, keys, check):
        one.add_argument("--json", action="store_true", help="print one JSON object")
    shapes = _verb(verbs, "shapes", _shapes, "what recent jobs looked like, for `assay probe`")
    shapes.add_argument("--json", action="store_true", help=ALWAYS)
    shapes.add_argument("--probe-keys", type=Path, help="the prober's keys, which are left out")
    calibrate = _verb(verbs, "calibrate", _calibrate, "fit honest noise from recorded audits")
    calibrate.add_argument("--database", help="SQLAlchemy URL; default: as `start`")
    calibrate.add_argument("--trusted", action="append", required=True, metavar="KEY")
    calibrate.add_argument("--version", type=int, required=True, help="above all earlier ones")
    calibrate.add_argument("--key", type=Path, required=True, help="an operator's key file")
    calibrate.add_argument("--output", "-o", type=Path, required=True, metavar="FILE")
    calibrate.add_argument("--json", action="store_true", help="one line for programs")
    _add_chain(verbs)
    audit = _verb(verbs, "audit", _audit, "check an epoch whole, from the chain and its leaf file")
    audit.add_argument("--epoch", type=int, required=True)
    audit.add_argument("--chain", help="JSON-RPC URL or file; default: the data directory's")
    audit.add_argument("--ledger", metavar="ADDRESS", help="default: the data directory's key's")
    published = "default: in the data directory"
    audit.add_argument("--leaves", metavar="FILE|URL", help=published)
    audit.add_argument("--before", metavar="FILE|URL", help="of the epoch before; default: beside")
    audit.add_argument("--pricing", type=Path, metavar="FILE", help="the rules that priced it")
    audit.add_argument("--challenge", action="store_true", help="show a fraud to the ledger")
    audit.add_argument("--key", type=Path, help="key file of who sends the challenge")
    audit.add_argument("--json", action="store_true")
    grant = _remote(verbs, "grant", _grant, "give an account credit")
    grant.add_argument("account", metavar="KEY")
    grant.add_argument("amount", type=int, metavar="MICROCREDITS")
    _remote(verbs, "close-epoch", _close_epoch, "close the running epoch now")
    return top


def _add_chain(verbs: Any) -> None:
    chain = verbs.add_parser("chain", help="the chain of a stopped coordinator")
    restore = _verb(
        chain.add_subparsers(required=True, metavar="VERB"),
        "restore",
        _restore_chain,
        "take sealed blocks that were lost here from a follower",
    )
    restore.add_argument("--from", dest="source", required=True, metavar="URL|FILE")
    restore.add_argument("--database", help="SQLAlchemy URL; default: as `start`")
    restore.add_argument("--json", action="store_true", help="one line for programs")


def _add_moderation(verbs: Any) -> None:
    text = "make and read moderation policies"
    group = verbs.add_parser("moderation", help=text, description=text)
    actions = group.add_subparsers(required=True, metavar="ACTION")
    sign = actions.add_parser("sign", help="sign a list of phrases, one a line")
    sign.add_argument("phrases", type=Path)
    sign.add_argument("--key", type=Path, required=True, help="the author's key file")
    sign.add_argument("--name", required=True)
    sign.add_argument("--version", type=int, required=True)
    sign.add_argument("--output", "-o", type=Path, required=True, metavar="FILE")
    show = actions.add_parser("show", help="what a policy file says, and its sha256")
    show.add_argument("file", type=Path)
    show.add_argument("--list", action="store_true", help="every phrase")
    for action, run in ((sign, _moderation_sign), (show, _moderation_show)):
        action.add_argument("--json", action="store_true", help="one line for programs")
        action.set_defaults(run=run)


def _moderation_sign(args: argparse.Namespace) -> int:
    from assay_coordinator.moderation_command import sign

    return sign(args)


def _moderation_show(args: argparse.Namespace) -> int:
    from assay_coordinator.moderation_command import show

    return show(args)


def _add_http(start: argparse.ArgumentParser) -> None:
    """The operator's pages, and who may read them."""
    pages = "serve the dashboard, its JSON API, /metrics, /healthz and /readyz"
    start.add_argument("--http", type=_http, metavar="HOST:PORT", help=pages)
    password = "with --http: file (mode 0600) of the password that its readers must tell"
    start.add_argument("--http-password", type=Path, metavar="FILE", help=password)
    known = "with --http: what it may be called beside localhost and addresses; repeatable"
    start.add_argument("--http-name", action="append", default=[], metavar="NAME", help=known)
    anybody = "with --http: whoever reaches it may read"
    start.add_argument("--http-open", action="store_true", help=anybody)


def _add_remote_chain(start: argparse.ArgumentParser) -> None:
    """Where epochs go; without these a chain of one's own in the data directory."""
    start.add_argument("--chain", metavar="URL", help="a node of a chain that others mine")
    start.add_argument(
        "--deployment",
        type=Path,
        metavar="FILE",
        help="with --chain: what `contracts deploy` wrote",
    )
    start.add_argument("--confirmations", type=int, metavar="N", help="blocks above a post; 12")
    start.add_argument("--fee-max", type=int, metavar="WEI", help="per gas; 500 gwei")


def _verb(verbs: Any, name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    parser.add_argument("--data-dir", type=Path, default=DEFAULT_DATA)
    parser.set_defaults(run=run)
    return parser


def _remote(verbs: Any, name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
    parser = _verb(verbs, name, run, text)
    parser.add_argument("--coordinator", required=True, metavar="MULTIADDR")
    parser.add_argument("--key", type=Path, required=True, help="an operator's key file")
    parser.add_argument("--json", action="store_true", help=ALWAYS)
    return parser


def _init(args: argparse.Namespace) -> int:
    from assay_coordinator.init_command import init_coordinator

    return init_coordinator(args)


def _start(args: argparse.Namespace) -> int:
    try:
        guard = _guard(args)
    except AssayError as error:  # of the command line, like what argparse refuses
        sys.stderr.write(f"{error}\n")
        return 2
    return _run(args, guard)


def _guard(args: argparse.Namespace) -> Guard:
    """Who may read what `--http` tells."""
    from assay_network.http_guard import Guard, guard_of

    given = args.http_password, args.http_name, args.http_open
    if args.http is None:
        if any(given):
            raise AssayError("config_invalid", "--http-password and so on go with --http")
        return Guard()
    return guard_of("--http", args.http, args.http_password, args.http_name, args.http_open)


def _run(args: argparse.Namespace, guard: Guard) -> int:
    import trio

    from assay_contracts.deploy.plan import LOCAL, choose
    from assay_coordinator.app import Settings, run_coordinator
    from assay_coordinator.policy_file import read_policy
    from assay_network.logs import configure_logs

    configure_logs()
    operators = frozenset(_key(text) for text in args.operator)
    policy = read_policy(args.policy, faucet=args.faucet, operators=operators)
    data_dir = args.data_dir.expanduser()
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # its tables tell who asked whom
    (data_dir / "catalogue").mkdir(exist_ok=True)
    settings = Settings(
        data_dir=data_dir,
        listen=tuple(args.listen or [DEFAULT_LISTEN]),
        database=args.database,
        catalogue=tuple(args.catalogue or [data_dir / "catalogue"]),
        rpc=args.rpc,
        http=args.http,
        http_guard=guard,
        otlp=args.otlp or "",
        policy=policy,
        calibrations=tuple(args.calibration),
        chain=_remote_chain(args),
        moderation=args.moderation,
        contracts=choose(LOCAL, args.contracts),
    )
    return trio.run(run_coordinator, settings)


def _remote_chain(args: argparse.Namespace) -> RemoteChain | None:
    given = (args.deployment, args.confirmations, args.fee_max)
    if args.chain is None:
        if given != (None,) * 3:
            raise AssayError("config_invalid", "--deployment and so on go with --chain")
        return None
    from assay_contracts.adapters.offers import FeeBounds
    from assay_contracts.deploy.deployment_record import read_record
    from assay_coordinator.adapters.anchor import CONFIRMATIONS, RemoteChain

    record = None if args.deployment is None else read_record(args.deployment)
    if record is None:
        raise AssayError("config_invalid", "--chain needs the --deployment's record")
    confirmations = CONFIRMATIONS if args.confirmations is None else args.confirmations
    if confirmations < 1:
        raise AssayError("config_invalid", "on a chain that others mine, confirm 1 block at least")
    return RemoteChain(
        url=args.chain,
        record=record,
        confirmations=confirmations,
        fees=FeeBounds() if args.fee_max is None else FeeBounds(args.fee_max),
    )


def _keys(args: argparse.Namespace) -> int:
    from assay_network.keystore import load_or_create_key
    from assay_protocol.signing import Identity

    data_dir = args.data_dir.expanduser()
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    identity = Identity(load_or_create_key(data_dir / "coordinator.key"))
    told = {"key": identity.public_key.hex()}
    if args.poster:
        from assay_contracts.adapters.wallet import address_of, show_address
        from assay_contracts.local.genesis import poster_key

        told["poster"] = show_address(address_of(poster_key(identity.seed)))
    sys.stdout.write((json.dumps(told) if args.json else "\n".join(told.values())) + "\n")
    return 0


def _check(args: argparse.Namespace) -> int:
    from assay_coordinator.adapters.check import check_books

    findings = check_books(f"sqlite:///{args.data_dir.expanduser() / 'coordinator.db'}")
    lines = "\n".join(findings or ["the books are in order"])
    told = {"ok": not findings, "findings": list(findings)}
    sys.stdout.write((json.dumps(told) if args.json else lines) + "\n")
    return 1 if findings else 0


def _audit(args: argparse.Namespace) -> int:
    from assay_coordinator.audit_command import audit

    return audit(args)


def _shapes(args: argparse.Namespace) -> int:
    from assay_coordinator.adapters.shapes import job_shapes, probe_keys

    database = f"sqlite:///{args.data_dir.expanduser() / 'coordinator.db'}"
    probes = probe_keys(args.probe_keys) if args.probe_keys else frozenset()
    for line in job_shapes(database, probes):
        sys.stdout.write(line + "\n")
    return 0


def _calibrate(args: argparse.Namespace) -> int:
    from assay_coordinator.calibrate import calibrate

    url = args.database or f"sqlite:///{args.data_dir.expanduser() / 'coordinator.db'}"
    trusted = frozenset(_key(text) for text in args.trusted)
    fitted = calibrate(url, trusted, args.version, args.key, args.output)
    sys.stdout.write((json.dumps(fitted) if args.json else _as_lines(fitted)) + "\n")
    return 0


def _as_lines(fitted: dict[str, Any]) -> str:
    head = f"version {fitted['version']} from {fitted['audits']} audits, in {fitted['file']}"
    pairs = [
        f"  {one['executor'] or 'any'} by {one['auditor'] or 'any'}: {one['jobs']} jobs,"
        f" drift {one['drift']:.4f}{', REFUSED as too noisy' if one['refused'] else ''}"
        for one in fitted["pairs"]
    ]
    return "\n".join([head, *pairs])


def _restore_chain(args: argparse.Namespace) -> int:
    from assay_coordinator.chain_restore import restore_chain
    from assay_network.keystore import load_key

    data_dir = args.data_dir.expanduser()
    url = args.database or f"sqlite:///{data_dir / 'coordinator.db'}"
    seed = load_key(data_dir / "coordinator.key")
    done = restore_chain(data_dir / "chain.db", url, seed, args.source)
    facts = {"blocks": done.blocks, "head": done.head, "hash": done.hash.hex()}
    text = f"{done.blocks} blocks taken over; the chain ends at block {done.head}"
    sys.stdout.write((json.dumps(facts) if args.json else text) + "\n")
    return 0


def _grant(args: argparse.Namespace) -> int:
    from assay_protocol.messages import Account, Grant

    return _ask(args, Grant(account=_key(args.account), amount=args.amount), Account)


def _close_epoch(args: argparse.Namespace) -> int:
    from assay_protocol.messages import CloseEpoch, EpochClosed

    return _ask(args, CloseEpoch(), EpochClosed)


def _ask(args: argparse.Namespace, request: object, answer: type[Any]) -> int:
    import trio

    from assay_coordinator.operator import ask
    from assay_network.keystore import load_or_create_key

    seed = load_or_create_key(args.key)
    reply = trio.run(partial(ask, seed, args.coordinator, request, answer))
    fields = {k: v.hex() if isinstance(v, bytes) else v for k, v in asdict(reply).items()}
    sys.stdout.write(json.dumps(fields) + "\n")
    return 0


def _key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise AssayError("config_invalid", f"a key is 64 hex digits, not {text!r}")
    return key


def _rpc(text: str) -> tuple[str, int]:
    return _address("--rpc", text)


def _http(text: str) -> tuple[str, int]:
    return _address("--http", text)


def _otlp(text: str) -> str:
    from assay_network.tracing import check_endpoint

    try:
        check_endpoint("--otlp", text)
    except AssayError as error:
        raise argparse.ArgumentTypeError(error.message) from error
    return text


def _address(flag: str, text: str) -> tuple[str, int]:
    """An address on the command line: argparse says what is wrong with it, and exits with 2."""
    from assay_network.http_listener import parse_address

    try:
        return parse_address(flag, text)
    except AssayError as error:
        raise argparse.ArgumentTypeError(error.message) from error


__all__: Sequence[str] = ("main",)
