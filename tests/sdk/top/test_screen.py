"""The full screen, driven by keys in a terminal of memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import httpx
import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from assay.top.core.board import Board, Picture
from assay.top.core.node_view import Look
from assay.top.screen import COLUMNS, Help, TopScreen, detail, fitting
from sdk.top.top_cases import SECOND, WALL, look, network_look

INTERVAL = 0.02
Drive = Callable[["Pilot[None]", TopScreen, "Watched"], Awaitable[None]]


class Watched:
    """A node that makes 20 tokens a second, one that is gone, and a network of two."""

    def __init__(self, coordinator: bool = True) -> None:
        self.looks, self.coordinator = 0, coordinator
        self._board = Board(["here", "there"], "c" if coordinator else None)

    async def look(self, web: httpx.AsyncClient) -> Picture:
        self.looks += 1
        at = 2 * self.looks
        own = look(at, 100 + 40 * self.looks, firsts=(self.looks, 0))
        gone = Look(at * SECOND, fault="unreachable")
        network = network_look(at) if self.coordinator else None
        return self._board.handle(WALL, [own, gone], network)


def drive(what: Drive, size: tuple[int, int] = (80, 24), coordinator: bool = True) -> None:
    async def run() -> None:
        watched = Watched(coordinator)
        screen = TopScreen(watched, INTERVAL)
        async with screen.run_test(size=size) as pilot:
            while watched.looks < 3:
                await pilot.pause(INTERVAL)
            await pilot.pause()
            await what(pilot, screen, watched)

    asyncio.run(run())


def shown(screen: TopScreen) -> list[str]:
    """The terminal's rows, as a person sees them."""
    strips = screen.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip).rstrip() for strip in strips]


async def until(screen: TopScreen, text: str) -> str:
    """The whole terminal once it shows `text`."""
    with anyio.fail_after(10):
        while text not in (found := "\n".join(shown(screen))):
            await anyio.sleep(INTERVAL)
    return found


async def more_looks(watched: Watched) -> None:
    """Until it was asked thrice more."""
    before = watched.looks
    with anyio.fail_after(10):
        while watched.looks < before + 3:
            await anyio.sleep(INTERVAL)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 10), (20, 5)])
def test_everything_fits_at_every_size(size: tuple[int, int]) -> None:
    async def check(pilot: Pilot[None], screen: TopScreen, watched: Watched) -> None:
        rows = shown(screen)
        assert len(rows) == size[1]
        assert all(len(row) <= size[0] for row in rows)
        assert rows[0].startswith("assay top")
        text = "\n".join(rows)
        assert "NODE" in text
        if size[0] >= 40:
            assert "20.0" in text
            assert "gone (unreachable)" in text
        assert ("TTFT95" in text) == (size[0] >= 80)
        assert ("newest audits" in text) == (size[1] >= 24)

    drive(check, size)


def test_keys_sort_pause_choose_and_end() -> None:
    async def check(pilot: Pilot[None], screen: TopScreen, watched: Watched) -> None:
        assert "by state" in shown(screen)[0]
        await pilot.press("s")
        await until(screen, "by tokens")
        first = next(row for row in shown(screen) if row.startswith("abababab"))
        assert "20.0" in first
        await pilot.press("p")
        await until(screen, "PAUSED")
        looks = watched.looks
        await pilot.pause(5 * INTERVAL)
        assert watched.looks == looks
        await pilot.press("down")
        await until(screen, "there  gone: unreachable")
        await pilot.press("p")
        await more_looks(watched)
        assert "there  gone: unreachable" in "\n".join(shown(screen)), "it stays chosen"

    drive(check)


@pytest.mark.parametrize("keys", [["q"], ["ctrl+c"], ["question_mark", "q"]])
def test_it_ends_by_a_key(keys: list[str]) -> None:
    async def check(pilot: Pilot[None], screen: TopScreen, watched: Watched) -> None:
        await pilot.press(*keys)
        with anyio.fail_after(20):
            while screen.is_running:
                await anyio.sleep(0.01)

    drive(check)


def test_help_opens_and_any_key_closes_it_while_looks_go_on() -> None:
    async def check(pilot: Pilot[None], screen: TopScreen, watched: Watched) -> None:
        await pilot.press("question_mark")
        assert isinstance(screen.screen, Help)
        await until(screen, "pause: ask nobody")
        await more_looks(watched)
        await pilot.press("x")
        assert not isinstance(screen.screen, Help)

    drive(check)


def test_without_colours_every_state_is_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def check(pilot: Pilot[None], screen: TopScreen, watched: Watched) -> None:
        assert screen.no_color
        colours = {
            segment.style.color.get_truecolor()
            for strip in screen.screen._compositor.render_strips()
            for segment in strip
            if segment.style is not None and segment.style.color is not None
        }
        assert colours
        assert all(one.red == one.green == one.blue for one in colours)
        text = "\n".join(shown(screen))
        assert "gone (unreachable)" in text
        assert "serving/active" in text

    drive(check)


def test_an_owner_sees_one_node_and_no_network() -> None:
    async def check(pilot: Pilot[None], screen: TopScreen, watched: Watched) -> None:
        await pilot.press("down")
        text = await until(screen, "max_celsius 80")
        assert "network" not in text
        assert "timeout at" in text
        assert "█" in text
        assert not screen.query_one("#network", Static).display

    drive(check, coordinator=False)


def test_the_columns_that_matter_least_go_first() -> None:
    assert fitting(COLUMNS, 500) == COLUMNS
    assert [one.title for one in fitting(COLUMNS, 10)] == ["NODE", "STATE", "OUT/S"]
    for width in range(40, 130):
        kept = fitting(COLUMNS, width)
        assert sum(one.width + 1 for one in kept) <= width
        assert len(fitting(COLUMNS, width + 1)) >= len(kept)


def test_what_only_a_node_tells_is_left_out_of_the_coordinators_rows() -> None:
    own, other = Board(["here"], "c").handle(WALL, [look(0, 1)], network_look(0)).nodes
    assert any(line.startswith("limits") for line in detail(own, 40))
    assert not any(line.startswith(("limits", "tokens/s")) for line in detail(other, 40))
    assert "3/1 passed/failed, evidence 1.5 of 9.0 nats" in "\n".join(detail(other, 40))
