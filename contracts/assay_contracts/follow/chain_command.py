"""`assay chain`: follow the coordinator's chain by executing it again, and handle chain files.

Exit codes: 0 done, and what was executed holds; 1 a block differs or an operating error; 2 wrong
command line. With --json every line of standard output is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from assay_contracts.follow.block_sources import BlockSource, export, open_source
from assay_contracts.follow.following import Difference, Follower, open_followed
from assay_contracts.local.chain import LocalChain
from assay_protocol.errors import AssayError

OK, FAILED = 0, 1
PROGRESS_SECONDS: Final = 1.0
INTERVAL_SECONDS: Final = 2.0
RETRY_SECONDS_MAX: Final = 60.0
KNOWN_BLOCKS: Final = 256  # told of again at a start with --blocks
_PASSING: Final = frozenset({"timeout", "peer_gone", "busy", "contract_refused"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. Raises AssayError, OSError: `assay` prints them."""
    options = parser().parse_args(argv)
    try:
        return int(options.run(options))
    except Difference as found:
        _tell_difference(options, found)
        return FAILED


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="assay chain", description="The local chain.")
    verbs = top.add_subparsers(required=True, metavar="VERB")
    follow = _verb(verbs, "follow", _follow, "execute every block again; stop at a difference")
    follow.add_argument("source", metavar="URL|FILE", help="JSON-RPC, chain file or export")
    follow.add_argument("--chain", type=Path, required=True, help="the follower's own file")
    follow.add_argument("--producer", help="key (hex) that the operator published: its seals count")
    follow.add_argument("--poster", help="address (hex) that the operator published")
    follow.add_argument("--once", action="store_true", help="end at the source's head")
    follow.add_argument("--blocks", action="store_true", help="a line for each block")
    follow.add_argument("--child", action="store_true", help="end when who started it has ended")
    follow.add_argument("--interval", type=float, default=INTERVAL_SECONDS, metavar="SECONDS")
    head = _verb(verbs, "head", _head, "the newest block")
    head.add_argument("source", metavar="URL|FILE")
    copy = _verb(verbs, "backup", _backup, "copy a chain file while it is in use")
    copy.add_argument("chain", type=Path)
    copy.add_argument("to", type=Path)
    out = _verb(verbs, "export", _export, "write sealed blocks to a file others can follow")
    out.add_argument("source", metavar="URL|FILE")
    out.add_argument("to", type=Path)
    return top


def _verb(verbs: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    one.add_argument("--json", action="store_true")
    one.set_defaults(run=run)
    return one


def _follow(options: argparse.Namespace) -> int:
    producer, poster = _hex(options.producer, 32), _hex(options.poster, 20)
    with closing(open_source(options.source)) as source:
        about = source.about()
        with open_followed(options.chain, about, producer=producer, poster=poster) as chain:
            if producer is None:
                print(
                    f"assay: taking the source's word for the producer {about.producer.hex()}",
                    file=sys.stderr,
                )
            watch = _Watch(options, chain)
            watch.started()
            _run(options, source, Follower(chain, source), watch)
    return OK


def _run(
    options: argparse.Namespace, source: BlockSource, follower: Follower, watch: _Watch
) -> None:
    wait, parent = options.interval, os.getppid()
    while not (options.child and os.getppid() != parent):
        try:
            added = follower.step()
            final = None if added else follower.finality()
        except AssayError as error:
            if error.code not in _PASSING or options.once:
                raise
            watch.waiting(error, wait)
            time.sleep(wait)
            wait = min(2 * wait, RETRY_SECONDS_MAX)
            continue
        wait = options.interval
        watch.stepped(added)
        watch.final(final)
        if not added:
            if options.once:
                return
            time.sleep(options.interval)


class _Watch:
    """Tells how it goes: at most one line a second, and one whenever the head is reached."""

    def __init__(self, options: argparse.Namespace, chain: LocalChain) -> None:
        self._json, self._blocks, self._chain = options.json, options.blocks, chain
        self._told = max(chain.head_block().number - KNOWN_BLOCKS, 0)
        self._since, self._busy, self._caught_up = time.monotonic(), 0, False
        self._final: int | None = None

    def started(self) -> None:
        genesis, head = self._chain.genesis_hash.hex(), self._chain.head_block()
        self._tell(
            {
                "event": "started",
                "chain_id": self._chain.chain_id,
                "genesis": genesis,
                "block": head.number,
            },
            f"genesis {genesis[:16]}, from block {head.number}",
        )

    def stepped(self, added: int) -> None:
        self._busy += added
        head = self._chain.head_block()
        if self._blocks:
            for number in range(self._told + 1, head.number + 1):
                block = self._chain.block(number)
                assert block is not None
                self._tell({"event": "block", "block": number, "hash": block.hash.hex()}, None)
        self._told = head.number
        elapsed = time.monotonic() - self._since
        if added and elapsed >= PROGRESS_SECONDS:
            rate = self._busy / elapsed
            self._tell(
                {"event": "progress", "block": head.number, "blocks_per_s": round(rate, 1)},
                f"block {head.number}, {rate:.0f} blocks/s",
            )
            self._since, self._busy = time.monotonic(), 0
        if added:
            self._caught_up = False
        elif not self._caught_up:
            self._caught_up = True
            self._since, self._busy = time.monotonic(), 0
            self._tell(
                {"event": "caught_up", "block": head.number, "hash": head.hash.hex()},
                f"every block up to {head.number} holds, hash {head.hash.hex()[:16]}",
            )

    def final(self, number: int | None) -> None:
        if number is not None and number != self._final:
            self._final = number
            self._tell(
                {"event": "final", "block": number},
                f"block {number} is final: more than two thirds of the bonds sealed it",
            )

    def waiting(self, error: AssayError, seconds: float) -> None:
        self._tell(
            {"event": "waiting", "code": error.code, "seconds": seconds},
            f"{error}; trying again in {seconds:g} s",
        )

    def _tell(self, event: dict[str, Any], line: str | None) -> None:
        if self._json:
            print(json.dumps(event), flush=True)
        elif line is not None:
            print(line, flush=True)
        elif self._blocks:
            print(f"block {event['block']} {event['hash']}", flush=True)


def _tell_difference(options: argparse.Namespace, found: Difference) -> None:
    evidence = None if found.evidence is None else found.evidence.document()
    if options.json:
        event = {"event": "difference", "block": found.number, "code": found.code}
        print(json.dumps(event | {"why": found.message, "evidence": evidence}), flush=True)
        return
    print(f"assay: {found}", file=sys.stderr)
    if evidence is not None:
        print("evidence against the producer, for SlashCourt:", file=sys.stderr)
        print(json.dumps(evidence), flush=True)


def _head(options: argparse.Namespace) -> int:
    with closing(open_source(options.source)) as source:
        about = source.about()
    if options.json:
        facts = {"chain_id": about.chain_id, "block": about.head, "poster": about.poster.hex()}
        print(json.dumps(facts | {"producer": about.producer.hex()}))
    else:
        print(f"chain {about.chain_id}, block {about.head}, producer {about.producer.hex()}")
    return OK


def _backup(options: argparse.Namespace) -> int:
    _refuse_existing(options.to)
    with LocalChain.open(options.chain, read_only=True) as chain:
        chain.backup(options.to)
    with LocalChain.open(options.to, read_only=True) as copied:
        head = copied.head_block()
    if options.json:
        print(json.dumps({"block": head.number, "hash": head.hash.hex()}))
    else:
        print(f"copied up to block {head.number}, hash {head.hash.hex()[:16]}")
    return OK


def _export(options: argparse.Namespace) -> int:
    _refuse_existing(options.to)
    with closing(open_source(options.source)) as source, options.to.open("xb") as target:
        written = export(source, target)
    print(json.dumps({"blocks": written}) if options.json else f"wrote {written} blocks")
    return OK


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise AssayError("config_invalid", f"{path} exists; it is not overwritten")


def _hex(text: str | None, size: int) -> bytes | None:
    if text is None:
        return None
    try:
        raw = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raw = b""
    if len(raw) != size:
        raise AssayError("config_invalid", f"not {size} bytes as hex: {text[:80]!r}")
    return raw
