"""`node models list|verify|pull|pin|unpin|rm`: what the owner sees and does of the models folder.

Exit codes are those of cli.py: 0 done, 1 an operating error. With --json every line is one object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from assay_node.config import Settings, load_from_process
from assay_protocol.errors import AssayError

Run = Callable[[argparse.Namespace], int]
AddCommand = Callable[[str, Run, str], argparse.ArgumentParser]
PROGRESS_STEPS: Final = 100
_MIB: Final = 1 << 20


def add_models_commands(add: AddCommand) -> None:
    """Add the commands with their flags; `add(name, run, text)` makes one."""
    pull = add("pull", _pull, "fetch the file of a card, resumed and checked")
    pull.add_argument("card", type=Path)
    pull.add_argument("--models-quota-gib", type=int, default=argparse.SUPPRESS)
    peer = "node to fetch it from, as KEY@MULTIADDR; repeatable"
    keep: Any = {"default": argparse.SUPPRESS}
    pull.add_argument("--model-peer", dest="model_peers", action="append", **keep, help=peer)
    named = (
        add("verify", _verify, "hash files again; all without a name"),
        add("rm", _remove, "delete a file of the models folder"),
        add("pin", _pin, "never evict this file"),
        add("unpin", _unpin, "evict it if need be"),
    )
    for command in named:
        many = "*" if command is named[0] else "+"
        command.add_argument("names", nargs=many, metavar="NAME")
    for command in (pull, add("list", _list, "what is in the models folder"), *named):
        command.add_argument("--json", action="store_true", help="one JSON object a line")
        command.add_argument("--data-dir", default=argparse.SUPPRESS)
        command.add_argument("--config", help="TOML file (or ASSAY_NODE_CONFIG)")


def _list(given: argparse.Namespace) -> int:
    from assay_node.models.library import ModelLibrary

    for one in ModelLibrary(_folder(_settings(given))).manifests():
        marks = " ".join(mark for mark in ("fetched", "pinned") if getattr(one, mark))
        line = f"{one.name:40} {one.size_bytes // _MIB:7} MiB {one.architecture} "
        line += f"{one.quantization} {one.license or 'no licence told'} {marks}"
        print(json.dumps(dataclasses.asdict(one)) if given.json else line.rstrip())
    return 0


def _verify(given: argparse.Namespace) -> int:
    """Every file is looked at, even after one was found wrong."""
    from assay_node.models.library import SUFFIX, ModelLibrary

    folder = _folder(_settings(given))
    models, code = ModelLibrary(folder), 0
    for name in given.names or sorted(path.stem for path in folder.glob("*" + SUFFIX)):
        try:
            digest, fault = models.verify(name).sha256, ""
        except AssayError as error:
            digest, fault, code = "", str(error), 1
        fields = {"name": name, "sha256": digest, "error": fault}
        print(json.dumps(fields) if given.json else f"{name}: {fault or 'ok ' + digest}")
    return code


def _remove(given: argparse.Namespace) -> int:
    return _each(given, "remove", "removed")


def _pin(given: argparse.Namespace) -> int:
    return _each(given, "pin", "pinned", True)


def _unpin(given: argparse.Namespace) -> int:
    return _each(given, "pin", "unpinned", False)


def _each(given: argparse.Namespace, method: str, done: str, *arguments: bool) -> int:
    from assay_node.models.library import ModelLibrary

    models = ModelLibrary(_folder(_settings(given)))
    for name in given.names:
        getattr(models, method)(name, *arguments)
        print(json.dumps({"name": name, "done": done}) if given.json else f"{done} {name}")
    return 0


def _pull(given: argparse.Namespace) -> int:
    from assay_node.models.obtain import obtain
    from assay_node.models.peers import block_peers
    from assay_protocol.cards import decode_card

    settings = _settings(given)
    try:
        card = decode_card(given.card.read_bytes())
    except OSError as error:
        raise AssayError("card_invalid", f"cannot read {given.card}") from error
    path = obtain(
        card,
        _folder(settings),
        settings.models_quota_bytes,
        _progress(given.json),
        block_peers(settings.model_peers),
    )
    fields = {"name": card.name, "sha256": card.digest.hex(), "path": str(path)}
    print(json.dumps(fields) if given.json else path)
    return 0


def _progress(as_json: bool) -> Callable[[int, int], None]:
    """Tells of each new hundredth: to the terminal in place, or as JSON lines."""
    told = [-1]

    def report(done: int, total: int) -> None:
        step = PROGRESS_STEPS * done // max(1, total)
        if step == told[0]:
            return
        told[0] = step
        if as_json:
            print(json.dumps({"bytes_done": done, "bytes_total": total}), flush=True)
        elif sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{step:3} % of {total // _MIB} MiB", end=end, file=sys.stderr, flush=True)

    return report


def _folder(settings: Settings) -> Path:
    from assay_node.loading import MODELS_FOLDER

    return settings.directory / MODELS_FOLDER


def _settings(given: argparse.Namespace) -> Settings:
    known = set(Settings.__slots__) - {"card"}
    flags = {key: value for key, value in vars(given).items() if key in known}
    return load_from_process(given.config, flags)
