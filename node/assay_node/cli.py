"""The commands of a GPU owner: `node start`, and what else is needed around it.

Exit codes: 0 done (or drained), 1 an operating error (printed as `code: message`), 2 wrong usage or
configuration, 3 `doctor` found a fault, `status` a node that is not well or `selfcheck` bits that
differ, 130 cancelled by a second signal.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from assay_node.config import ENGINES, FITS, PROFILES, Settings, load_from_process
from assay_node.models.commands import add_models_commands
from assay_protocol.errors import AssayError
from assay_protocol.extras import report_missing

EXIT_OK: Final = 0
EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNWELL: Final = 3
EXIT_CANCELLED: Final = 130
CLAIMS: Final = ("exact", "exact-native")  # profiles that promise equal bits
_CREDIT_FIELDS: Final = ("ticket", "receipt", "ack", "ticket_blob")


def main(argv: list[str] | None = None) -> int:
    """Run one command; never raises for what an owner or a peer can cause."""
    parser = build_parser()
    try:
        given = parser.parse_args(argv)
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


def build_parser() -> argparse.ArgumentParser:
    """All commands and flags."""
    parser = argparse.ArgumentParser(prog="node", description="Serve a model on the network.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    start = _command(commands, "start", _start, "serve until told to stop")
    _add_settings(start)
    start.add_argument("--json", action="store_true", help="print status as JSON lines")
    status = _command(commands, "status", _status, "what the running node last said")
    status.add_argument("--json", action="store_true", help="print the whole status")
    benchmark = _command(commands, "benchmark", _benchmark, "measure every profile")
    benchmark.add_argument("--json", action="store_true", help="print one JSON object")
    doctor = _command(commands, "doctor", _doctor, "check key, disk, model, port, coordinator")
    selfcheck = _command(commands, "selfcheck", _selfcheck, "prove equal bits, or not")
    selfcheck.add_argument("claim", choices=CLAIMS, nargs="?", default="exact")
    selfcheck.add_argument("--json", action="store_true", help="print one JSON object")
    for command in (benchmark, doctor, selfcheck):
        _add_settings(command)
    keys = _group(commands, "keys", "the node's identity")
    show = _command(keys, "show", _keys_show, "print the public key")
    new = _command(keys, "new", _keys_new, "make a key; refused if there is one")
    models = _group(commands, "models", "model files and cards")
    card = _command(models, "card", _models_card, "write the card of a GGUF file")
    card.add_argument("model", type=Path)
    card.add_argument("-o", "--out", type=Path, required=True)
    card.add_argument("--adapter", type=Path, help="LoRA file: the card of the model with it")
    card.add_argument("--name", help="default: the file's name")
    card.add_argument("--price-in", type=int, default=100, help="micro-credits per 1000 tokens")
    card.add_argument("--price-out", type=int, default=400, help="micro-credits per 1000 tokens")
    add_models_commands(lambda name, run, text: _command(models, name, run, text))
    credit = _group(commands, "credit", "what this node has earned")
    receipts = _command(credit, "receipts", _credit_receipts, "print every receipt as JSON lines")
    for command in (status, show, new, receipts):
        command.add_argument("--data-dir", default=argparse.SUPPRESS)
        command.add_argument("--config", help="TOML file (or ASSAY_NODE_CONFIG)")
    return parser


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
    models = "another model, CARD or CARD=FILE; repeatable"
    parser.add_argument("--models", action="append", **keep, metavar="CARD[=FILE]", help=models)
    parser.add_argument("--fetch-card", action="store_true", **keep, help="ask the coordinator")
    parser.add_argument("--data-dir", **keep)
    parser.add_argument("--listen", action="append", **keep, help="multiaddress; repeatable")
    parser.add_argument("--announce", action="append", **keep, help="address to tell instead")
    for name in ("threads", "slots", "context", "models-quota-gib", "memory-gib", "share-mib-s"):
        parser.add_argument(f"--{name}", type=int, **keep)
    for name in ("drain-timeout", "status-interval"):
        parser.add_argument(f"--{name}", type=int, **keep)
    peer = "node to fetch the model from; repeatable"
    parser.add_argument("--model-peer", dest="model_peers", action="append", **keep, help=peer)
    parser.add_argument("--fit", choices=FITS, **keep, help="where memory does not suffice")
    parser.add_argument("--follow", **keep, metavar="URL", help="execute the chain again, and vote")
    pages = "serve /metrics, /healthz and /readyz there"
    parser.add_argument("--metrics", **keep, metavar="HOST:PORT", help=pages)
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


def _benchmark(given: argparse.Namespace) -> int:
    settings = _settings(given)
    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = [_measured(one) for one in settings.each() if not _adds_adapter(one)]
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


def _measured(settings: Settings) -> dict[str, Any]:
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
            prefill, decode = await measured_rates(one, engine, info.model, directory, fresh=True)
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
    from assay_node.doctor import examine

    findings = examine(_settings(given))
    for finding in findings:
        print(f"{'ok  ' if finding.good else 'FAIL'} {finding.what}: {finding.detail}")
    return EXIT_OK if all(finding.good for finding in findings) else EXIT_UNWELL


def _keys_show(given: argparse.Namespace) -> int:
    from assay_network.identity import peer_text
    from assay_network.keystore import load_key
    from assay_node.app import KEY_FILE
    from assay_protocol.signing import Identity

    path = _settings(given).directory / KEY_FILE
    try:
        key = Identity(load_key(path)).public_key
    except FileNotFoundError as error:
        raise AssayError("key_invalid", f"no key at {path}; `node keys new` makes one") from error
    print(f"key {key.hex()}\npeer {peer_text(key)}\nfile {path}")
    return EXIT_OK


def _keys_new(given: argparse.Namespace) -> int:
    from assay_network.keystore import load_or_create_key
    from assay_node.app import KEY_FILE

    path = _settings(given).directory / KEY_FILE
    if path.exists():
        raise AssayError("key_invalid", f"{path} exists; a key is never replaced")
    load_or_create_key(path)
    return _keys_show(given)


def _models_card(given: argparse.Namespace) -> int:
    from assay_node.models.adapters import check_adapter
    from assay_node.models.card import build_card, file_sha256
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
    data = encode_card(card)
    try:
        given.out.write_bytes(data)
    except OSError as error:
        raise AssayError("storage_failed", f"{given.out}: {error.strerror}") from error
    print(f"model {card.model.hex()}\ncard {card_digest(data).hex()}\nfile {given.out}")
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
