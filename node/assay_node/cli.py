"""The commands of a GPU owner: `node start`, and what else is needed around it.

Exit codes: 0 done (or drained), 1 an operating error (printed as `code: message`), 2 wrong usage or
configuration, 3 `status` found a node that is not well or `selfcheck` bits that differ, 10 and more
what `doctor` found (faults.EXIT_CODES), 130 cancelled by a second signal.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from assay_node.config import ENGINES, FITS, PROFILES, Settings, load_from_process
from assay_node.keys_command import add_keys_commands
from assay_node.models.commands import add_models_commands
from assay_node.service_command import add_service_commands
from assay_protocol.errors import AssayError
from assay_protocol.extras import report_missing

EXIT_OK: Final = 0
EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNWELL: Final = 3
EXIT_CANCELLED: Final = 130
DRAIN_SPARE_SECONDS: Final = 15  # beyond what the node's own bounds allow
CLAIMS: Final = ("exact", "exact-native")  # profiles that promise equal bits
_MARKS: Final = {"ok": "ok  ", "fault": "FAIL", "skipped": "--  "}
_CREDIT_FIELDS: Final = ("ticket", "receipt", "ack", "ticket_blob")


def main(argv: list[str] | None = None) -> int:
    """Run one command; never raises for what an owner or a peer can cause."""
    try:
        given = parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed why
        return EXIT_OK if stop.code in (0, None) else EXIT_USAGE
    run: Callable[[argparse.Namespace], int] = given.run
    try:
        return run(given)
    except AssayError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE if error.code == "config_invalid" else EXIT_ERROR
    except ModuleNotFoundError as error:
        return report_missing("node", "node", error)
    except KeyboardInterrupt:
        return EXIT_CANCELLED


def parser() -> argparse.ArgumentParser:
    """All commands and flags."""
    top = argparse.ArgumentParser(prog="node", description="Serve a model on the network.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    start = _command(commands, "start", _start, "serve until told to stop")
    _add_settings(start)
    start.add_argument("--json", action="store_true", help="print status as JSON lines")
    init = _command(commands, "init", _init, "write a configuration of these flags, and a key")
    init.add_argument("--json", action="store_true", help="print one JSON object")
    _add_settings(init)
    status = _command(commands, "status", _status, "what the running node last said")
    status.add_argument("--json", action="store_true", help="print the whole status")
    drain = _command(commands, "drain", _drain, "tell the running node to finish and end")
    drain.add_argument("--wait", type=int, metavar="SECONDS", help="0: only tell it")
    drain.add_argument("--json", action="store_true", help="print the last status")
    benchmark = _command(commands, "benchmark", _benchmark, "measure every profile")
    benchmark.add_argument("--json", action="store_true", help="print one JSON object")
    remembered = "rates measured before with this model, engine and device, if there are any"
    benchmark.add_argument("--cached", action="store_true", help=remembered)
    doctor = _command(commands, "doctor", _doctor, "would it start here? each fault with its mend")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.add_argument("--quick", action="store_true", help="load no model to try it")
    selfcheck = _command(commands, "selfcheck", _selfcheck, "prove equal bits, or not")
    selfcheck.add_argument("claim", choices=CLAIMS, nargs="?", default="exact")
    selfcheck.add_argument("--json", action="store_true", help="print one JSON object")
    for command in (benchmark, doctor, selfcheck):
        _add_settings(command)
    keys = _group(commands, "keys", "the node's identity")
    add_keys_commands(lambda name, run, text: _command(keys, name, run, text))
    models = _group(commands, "models", "model files and cards")
    card = _command(models, "card", _models_card, "write the card of a GGUF file")
    card.add_argument("model", type=Path)
    card.add_argument("-o", "--out", type=Path, required=True)
    card.add_argument("--adapter", type=Path, help="LoRA file: the card of the model with it")
    card.add_argument("--projector", type=Path, help="mmproj file: a model that reads images")
    card.add_argument("--name", help="default: the file's name")
    card.add_argument("--price-in", type=int, default=100, help="micro-credits per 1000 tokens")
    card.add_argument("--price-out", type=int, default=400, help="micro-credits per 1000 tokens")
    card.add_argument("--json", action="store_true", help="print one JSON object")
    add_models_commands(lambda name, run, text: _command(models, name, run, text))
    service = _group(commands, "service", "run under systemd")
    add_service_commands(lambda name, run, text: _command(service, name, run, text))
    credit = _group(commands, "credit", "what this node has earned")
    receipts = _command(credit, "receipts", _credit_receipts, "print every receipt as JSON lines")
    receipts.add_argument("--json", action="store_true", help="they always are")
    for command in (status, drain, receipts):
        command.add_argument("--data-dir", default=argparse.SUPPRESS)
        command.add_argument("--config", help="TOML file (or ASSAY_NODE_CONFIG)")
    return top


def _command(
    group: Any, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def _group(commands: Any, name: str, text: str) -> Any:
    return commands.add_parser(name, help=text).add_subparsers(required=True, metavar="COMMAND")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """One flag for every field of Settings; a flag not given leaves file and environment alone."""
    parser.add_argument("--config", help="TOML file (or ASSAY_NODE_CONFIG)")
    keep: Any = {"default": argparse.SUPPRESS}
    parser.add_argument("--coordinator", **keep, help="KEY@MULTIADDR or .../p2p/<peer id>")
    parser.add_argument("--model", **keep, help="GGUF file")
    parser.add_argument("--card", **keep, help="model card of that file")
    images = "mmproj file of a card that reads images"
    parser.add_argument("--projector", **keep, metavar="FILE", help=images)
    models = "another model, CARD or CARD=FILE; repeatable"
    parser.add_argument("--models", action="append", **keep, metavar="CARD[=FILE]", help=models)
    parser.add_argument("--fetch-card", action="store_true", **keep, help="ask the coordinator")
    parser.add_argument("--data-dir", **keep)
    parser.add_argument("--listen", action="append", **keep, help="multiaddress; repeatable")
    parser.add_argument("--announce", action="append", **keep, help="address to tell instead")
    for name in ("threads", "slots", "context", "models-quota-gib", "memory-gib", "share-mib-s"):
        parser.add_argument(f"--{name}", type=int, **keep)
    hours = "when to work, like 'mon-fri 22:00-07:00'; repeatable"
    parser.add_argument("--hours", action="append", **keep, metavar="WHEN", help=hours)
    parser.add_argument("--time-zone", **keep, help="of --hours, like Europe/Zurich")
    client = "key, hex, of a client to serve, and no other; repeatable"
    parser.add_argument("--client", dest="clients", action="append", **keep, help=client)
    refused = "key, hex, of a client not to serve; repeatable"
    parser.add_argument(
        "--refuse-client", dest="refused_clients", action="append", **keep, help=refused
    )
    parser.add_argument("--region", **keep, help="where the node is, for clients who ask: eu-de")
    for name in (
        "idle-minutes",
        "max-celsius",
        "max-watts",
        "daily-upload-mib",
        "min-price-in",
        "min-price-out",
    ):
        parser.add_argument(f"--{name}", type=int, **keep)
    for name in ("drain-timeout", "status-interval"):
        parser.add_argument(f"--{name}", type=int, **keep)
    peer = "node to fetch the model from; repeatable"
    parser.add_argument("--model-peer", dest="model_peers", action="append", **keep, help=peer)
    parser.add_argument("--fit", choices=FITS, **keep, help="where memory does not suffice")
    parser.add_argument("--follow", **keep, metavar="URL", help="execute the chain again, and vote")
    parser.add_argument("--otlp", **keep, metavar="URL", help="send traces to that collector")
    pages = "serve /metrics, /healthz and /readyz there"
    parser.add_argument("--metrics", **keep, metavar="HOST:PORT", help=pages)
    parser.add_argument("--metrics-password", **keep, metavar="FILE", help="that they ask for")
    known = "what they may be called beside localhost and addresses; repeatable"
    parser.add_argument(
        "--metrics-name", dest="metrics_names", action="append", **keep, metavar="NAME", help=known
    )
    anybody = "whoever reaches them may read"
    parser.add_argument("--metrics-open", action="store_true", **keep, help=anybody)
    parser.add_argument("--operator", **keep, help="your account key, hex")
    parser.add_argument("--chain", **keep, help="JSON-RPC URL to compare the rules with")
    parser.add_argument("--registry", **keep, help="address of the ModelRegistry, hex")
    parser.add_argument("--engine", choices=ENGINES, **keep, help="scripted is simulated")
    parser.add_argument("--engine-url", **keep, help="server of the engine openai")
    parser.add_argument("--engine-key-file", **keep, help="its key, mode 0600")
    parser.add_argument("--engine-model", **keep, help="its name for the model")
    parser.add_argument("--profile", choices=PROFILES, **keep, help="auditable bits, or speed")


def _settings(given: argparse.Namespace) -> Settings:
    known = set(Settings.__slots__)
    flags = {key: value for key, value in vars(given).items() if key in known}
    return load_from_process(given.config, flags)


def _start(given: argparse.Namespace) -> int:
    import trio

    from assay_node.app import run_node
    from assay_node.status import Status

    settings, width = _settings(given), [0]

    def report(status: Status) -> None:
        if given.json:
            print(status.json(), flush=True)
        elif sys.stdout.isatty():
            line = status.line()
            print("\r" + line.ljust(width[0]), end="", flush=True)
            width[0] = len(line)
        else:
            print(status.line(), flush=True)

    _log_to_stderr()
    return trio.run(lambda: run_node(settings, report=report))


def _init(given: argparse.Namespace) -> int:
    from assay_node.init_command import init_node

    return init_node(given)


def _log_to_stderr() -> None:
    """One JSON object a log event, apart from the status lines on stdout."""
    from assay_network.logs import configure_logs

    configure_logs()


def _status(given: argparse.Namespace) -> int:
    from assay_node.status import MICRO, STALE_SECONDS, Status, read_status

    raw = read_status(_settings(given).directory)
    try:
        status = Status(**raw)
        age = time.time() - status.at / MICRO
        lines = [status.json()] if given.json else [status.line(), *status.model_lines()]
        print("\n".join(lines))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise AssayError("config_invalid", "the status file is of another version") from error
    if age > STALE_SECONDS or status.phase == "drained":
        print(f"not running: the last word is {age:.0f} s old", file=sys.stderr)
        return EXIT_UNWELL
    return EXIT_OK


def _drain(given: argparse.Namespace) -> int:
    """Waits as long as a drain may take, unless told otherwise."""
    from assay_node.core.parameters import SECOND_US, Parameters
    from assay_node.running import drain_node
    from assay_node.status import Status, read_status

    settings, bounds = _settings(given), Parameters()
    most = settings.drain_timeout + (bounds.deliver_us + bounds.prove_us) // SECOND_US
    wait = most + DRAIN_SPARE_SECONDS if given.wait is None else given.wait
    said = [""]

    def told() -> None:
        try:
            line = Status(**read_status(settings.directory)).line()
        except (AssayError, TypeError):
            return
        if line != said[0] and not given.json:
            print(line, flush=True)
        said[0] = line

    ended = drain_node(settings.directory, wait_seconds=wait, told=told)
    if given.json:
        print(json.dumps({"drained": ended, "status": read_status(settings.directory)}))
    elif given.wait != 0:
        print("drained" if ended else f"still draining after {wait} s", file=sys.stderr)
    return EXIT_OK if ended or given.wait == 0 else EXIT_UNWELL


def _benchmark(given: argparse.Namespace) -> int:
    settings = _settings(given)
    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = [_measured(one, not given.cached) for one in settings.each() if not _adds_adapter(one)]
    if given.json:
        print(json.dumps(found[0] if len(found) == 1 else {"models": found}))
        return EXIT_OK
    for one in found:
        if len(found) > 1:
            print(f"model {one['model']}")
        print(f"{'profile':8} {'prefill/s':>10} {'decode/s':>10} {'exact':6} class")
        for name, row in one["profiles"].items():
            exact = "yes" if row["exact"] else "no"
            rates = f"{row['prefill_tps']:10.1f} {row['decode_tps']:10.1f}"
            print(f"{name:8} {rates} {exact:6} {row['class_id']}")
    return EXIT_OK


def _adds_adapter(settings: Settings) -> bool:
    """An adapter is measured with its model or not at all: its engine is that one's."""
    from assay_node.loading import read_card

    card = read_card(settings)
    return card is not None and card.adapter is not None


def _measured(settings: Settings, fresh: bool) -> dict[str, Any]:
    """What each profile gives with one model."""
    import trio

    from assay_node.loading import measured_rates, open_engine, prepare_model, read_card
    from assay_protocol.classes import is_exact

    prepared, directory = prepare_model(settings, read_card(settings)), settings.directory
    model = ""

    async def measure(one: Settings) -> dict[str, Any]:
        nonlocal model
        async with open_engine(one, prepared) as engine:
            info = engine.info
            model = info.model.hex()
            prefill, decode = await measured_rates(one, engine, info.model, directory, fresh=fresh)
            return {
                "class_id": info.class_id,
                "exact": is_exact(info.class_id),
                "prefill_tps": prefill / 1000,
                "decode_tps": decode / 1000,
            }

    names = PROFILES if settings.engine == "llama" else (settings.profile,)
    found = {name: trio.run(measure, replace(settings, profile=name)) for name in names}
    return {"model": model, "profiles": found}


def _selfcheck(given: argparse.Namespace) -> int:
    from assay_node.selfcheck_command import selfcheck_command

    exact = selfcheck_command(_settings(given), given.claim, as_json=given.json)
    return EXIT_OK if exact else EXIT_UNWELL


def _doctor(given: argparse.Namespace) -> int:
    from assay_node.doctor import examine, exit_code

    found = examine(_settings(given), load_engine=not given.quick)
    code = exit_code(found)
    if given.json:
        findings = [dataclasses.asdict(finding) for finding in found]
        print(json.dumps({"ok": code == 0, "exit_code": code, "findings": findings}))
        return code
    for finding in found:
        said = f"{finding.code}: {finding.detail}" if finding.code else finding.detail
        print(f"{_MARKS[finding.state]} {finding.check}: {said}")
        if finding.mend:
            print(f"     mend: {finding.mend}")
    return code


def _models_card(given: argparse.Namespace) -> int:
    from assay_node.models.adapters import check_adapter
    from assay_node.models.card import build_card, file_sha256
    from assay_node.models.projectors import vision_of
    from assay_node.models.sharing import hash_blocks
    from assay_protocol.blocks import block_root
    from assay_protocol.cards import card_digest, encode_card

    stems = [file.stem for file in (given.model, given.adapter) if file is not None]
    name = given.name or "-".join(stems)
    card = build_card(given.model, name=name, price_in=given.price_in, price_out=given.price_out)
    root = block_root(card.size_bytes, hash_blocks(given.model))
    card = replace(card, block_root=root)  # so that nodes can fetch it from one another
    if given.adapter is not None:
        check_adapter(given.adapter, card.architecture)
        card = replace(card, adapter=file_sha256(given.adapter))
    if given.projector is not None:
        card = replace(card, vision=vision_of(given.projector, given.model, card))
    data = encode_card(card)
    try:
        given.out.write_bytes(data)
    except OSError as error:
        raise AssayError("storage_failed", f"{given.out}: {error.strerror}") from error
    told = {"model": card.model.hex(), "card": card_digest(data).hex(), "file": str(given.out)}
    lines = "\n".join(f"{name} {value}" for name, value in told.items())
    print(json.dumps(told) if given.json else lines)
    return EXIT_OK


def _credit_receipts(given: argparse.Namespace) -> int:
    from assay_node.app import RECEIPTS_FILE
    from assay_node.store import ReceiptStore

    store = ReceiptStore(_settings(given).directory / RECEIPTS_FILE)
    try:
        for row in store.export_receipts():
            blobs = {key: getattr(row, key) for key in _CREDIT_FIELDS}
            line: dict[str, object] = {
                key: None if blob is None else blob.hex() for key, blob in blobs.items()
            }
            line |= {"state": row.state, "charged": row.charged, "code": row.code}
            print(json.dumps(line | {"saved_at": row.saved_at}))
    finally:
        store.close()
    return EXIT_OK
