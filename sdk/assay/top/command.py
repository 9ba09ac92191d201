"""`assay top`: nodes and the network, live, on a full screen; or as lines, or as JSON.

Exit codes: 0 ended (by q, --count or Ctrl-C), 2 wrong usage, or the extra `top` is not installed.
A node that does not answer is shown as gone: that is what one looks for, and no error.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import anyio
import httpx

from assay.cli import OK, USAGE, load, print_json, printable
from assay.top.core.board import NODES_MAX, Board, Picture
from assay.top.core.network_view import NetworkLook
from assay.top.core.node_view import Look
from assay.top.lines import plain_lines
from assay.top.reading import (
    NodePlace,
    look_at_network,
    look_at_node,
    new_web,
    node_place,
    page_root,
    passwords,
)
from assay_protocol.errors import AssayError

INTERVAL_SECONDS = 2.0
INTERVAL_RANGE = (0.2, 3_600.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; returns the exit code."""
    try:
        options = parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed why
        return OK if stop.code in (0, None) else USAGE
    try:
        watched = Watched.of(options)
    except AssayError as error:
        print(f"assay top: {printable(str(error))}", file=sys.stderr)
        return USAGE
    try:
        if options.json or options.plain or not (sys.stdout.isatty() and sys.stdin.isatty()):
            show = _print_told if options.json else _print_lines
            anyio.run(partial(_repeat, watched, show, options.interval, options.count))
            return OK
        screen = load("assay.top.screen", "top")
        screen.TopScreen(watched, options.interval).run()
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="assay top", description="What nodes and the network do.")
    where = "URL or HOST:PORT of its pages (node start --metrics), or its data folder; repeatable"
    top.add_argument("--node", action="append", default=[], metavar="WHERE", help=where)
    door = "URL or HOST:PORT of a coordinator's dashboard (coordinator start --http)"
    top.add_argument("--coordinator", metavar="URL", help=door)
    secret = "its file (mode 0600), where pages ask for one; WHERE= if several are watched"
    top.add_argument("--password", action="append", default=[], metavar="[WHERE=]FILE", help=secret)
    top.add_argument("--interval", type=_interval, default=INTERVAL_SECONDS, metavar="SECONDS")
    top.add_argument("--count", type=_count, help="end after so many, printed as lines or JSON")
    top.add_argument("--plain", action="store_true", help="lines, as without a terminal")
    top.add_argument("--json", action="store_true", help="one JSON object an interval")
    return top


@dataclass(frozen=True, slots=True)
class Watched:
    """What is looked at, and what was seen of it so far."""

    nodes: tuple[NodePlace, ...]
    coordinator: str | None
    password: str = field(repr=False)  # of the coordinator's pages
    board: Board = field(compare=False)

    @classmethod
    def of(cls, options: argparse.Namespace) -> Watched:
        """As the options say; this machine's node if they name nothing. Raises AssayError."""
        coordinator = options.coordinator and page_root(options.coordinator)
        names = list(dict.fromkeys(options.node))
        if not names and not coordinator:
            names = [_local_folder()]
        if len(names) > NODES_MAX:
            raise AssayError("config_invalid", f"--node can be given {NODES_MAX} times")
        told = [*names, *([options.coordinator] if coordinator else [])]
        secrets = passwords(options.password, told)
        nodes = tuple(node_place(name, secrets.get(name, "")) for name in names)
        secret = secrets.get(options.coordinator or "", "")
        return cls(nodes, coordinator, secret, Board(names, coordinator))

    async def look(self, web: httpx.AsyncClient) -> Picture:
        """Ask everybody at once. Ends within reading.LOOK_SECONDS."""
        looks: list[Look] = [Look(0, fault="timeout")] * len(self.nodes)
        network: NetworkLook | None = None

        async def one(index: int, place: NodePlace) -> None:
            looks[index] = await look_at_node(web, place)

        async def all_nodes(url: str) -> None:
            nonlocal network
            network = await look_at_network(web, url, self.password)

        async with anyio.create_task_group() as group:
            for index, place in enumerate(self.nodes):
                group.start_soon(one, index, place)
            if self.coordinator is not None:
                group.start_soon(all_nodes, self.coordinator)
        return self.board.handle(time.time_ns() // 1000, looks, network)


async def _repeat(
    watched: Watched, show: Callable[[Picture], None], interval: float, count: int | None
) -> None:
    """Look and show, every `interval` seconds from beginning to beginning, `count` times."""
    async with new_web() as web:
        done = 0
        while True:
            began = anyio.current_time()
            show(await watched.look(web))
            done += 1
            if done == count:
                return
            await anyio.sleep(max(0.0, began + interval - anyio.current_time()))


def _print_told(picture: Picture) -> None:
    print_json(picture.told())
    sys.stdout.flush()


def _print_lines(picture: Picture) -> None:
    print("\n".join(plain_lines(picture)), flush=True)


def _local_folder() -> str:
    """The data folder of this machine's node, as `node status` finds it."""
    return str(load("assay_node.config", "node").load_from_process(None, {}).directory)


def _interval(text: str) -> float:
    seconds = float(text)
    low, high = INTERVAL_RANGE
    if not low <= seconds <= high:
        raise ValueError(text)
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count
