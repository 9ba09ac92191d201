"""A virtual run is a function of its seed, and nothing gets out of it."""

from __future__ import annotations

import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio._core import _run as scheduler

from assay_simnet.determinism import Escaped, halting, run_virtual

EPOCH_US = 1_800_000_000_000_000


async def scramble() -> list[tuple[int, float]]:
    """Ties everywhere: tasks that wake together, a lock, a cancelled scope, a channel."""
    seen: list[tuple[int, float]] = []
    lock, go = trio.Lock(), trio.Event()
    put, take = trio.open_memory_channel[int](0)

    async def one(number: int) -> None:
        await go.wait()
        async with lock:
            seen.append((number, random.random()))
        with trio.move_on_after(1 + number % 3):
            await trio.sleep_forever()
        seen.append((number, trio.current_time()))
        await put.send(number)

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(one, number)
        await trio.sleep(1)
        go.set()
        for _ in range(40):
            seen.append((await take.receive(), 0.0))
    return seen


def test_one_seed_gives_one_order_and_another_another() -> None:
    kept = [object() for _ in range(999)]  # other addresses, so that sets are in another order
    first = run_virtual(scramble, seed=3)
    del kept
    assert run_virtual(scramble, seed=3) == first
    assert run_virtual(scramble, seed=4) != first


def test_the_order_does_not_depend_on_the_hash_seed() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_determinism import scramble\n"
        "from assay_simnet.determinism import run_virtual\n"
        "print(run_virtual(scramble, seed=5))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(seen) == 1


def test_every_clock_says_virtual_time() -> None:
    async def look() -> tuple[float, ...]:
        before = time.time(), time.monotonic(), time.perf_counter()
        wall_ns = time.time_ns()
        await trio.sleep(3_600)
        now = time.time(), time.monotonic(), time.perf_counter()
        assert time.time_ns() - wall_ns == 3_600 * 10**9
        return (before[0], *(b - a for a, b in zip(before, now, strict=True)))

    began = time.monotonic()
    assert run_virtual(look, start_us=EPOCH_US) == (EPOCH_US / 1e6, 3_600, 3_600, 3_600)
    assert time.monotonic() - began < 60


def test_entropy_is_the_seed_s() -> None:
    async def draw() -> tuple[object, ...]:
        return os.urandom(8), secrets.token_bytes(8), uuid.uuid4(), random.random()

    first = run_virtual(draw, seed=1)
    assert run_virtual(draw, seed=1) == first
    other = run_virtual(draw, seed=2)
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_a_thread_takes_no_time_and_is_a_checkpoint() -> None:
    seen: list[str] = []

    async def main() -> float:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1_000)
            limiter = trio.CapacityLimiter(1)
            await trio.to_thread.run_sync(seen.append, "in no thread", limiter=limiter)
            await trio.to_thread.run_sync(seen.append, "nor this")
            with trio.CancelScope() as scope:
                scope.cancel()
                await trio.to_thread.run_sync(seen.append, "never")
            now = trio.current_time()
            nursery.cancel_scope.cancel()
        return now

    assert run_virtual(main) == 0.0
    assert seen == ["in no thread", "nor this"]


def _thread() -> None:
    threading.Thread(target=print).start()


@pytest.mark.parametrize(
    "escape",
    [
        lambda: socket.socket(),
        lambda: socket.create_connection(("127.0.0.1", 9)),
        _thread,
        lambda: subprocess.run(["true"], check=False),
        lambda: os.fork(),
        lambda: os.system("true"),
        lambda: time.sleep(0.001),
    ],
)
def test_an_escape_ends_the_run_and_names_its_place(escape: Callable[[], object]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                escape()
            except Exception:  # as a host swallows what its handlers raise
                await trio.sleep(1)

    with pytest.raises(Escaped, match=r"in a virtual run: .*test_determinism\.py:\d+"):
        run_virtual(main)


def test_what_is_raised_within_halting_ends_the_run_though_it_is_swallowed() -> None:
    async def main() -> None:
        try:
            with halting():
                raise ValueError("seen by nobody")
        except ValueError:
            await trio.sleep_forever()

    with pytest.raises(ValueError, match="seen by nobody"):
        run_virtual(main)


def test_everything_is_as_before_after_a_run_that_failed() -> None:
    async def fail() -> None:
        raise KeyError

    names = time.time, time.sleep, os.urandom, socket.socket.__init__, trio.to_thread.run_sync
    state, coin = random.getstate(), scheduler._r.getstate()
    sorts = scheduler._ALLOW_DETERMINISTIC_SCHEDULING  # pytest-trio may have set it
    with pytest.raises(KeyError):
        run_virtual(fail, seed=9)
    after = time.time, time.sleep, os.urandom, socket.socket.__init__, trio.to_thread.run_sync
    assert after == names
    assert random.getstate() == state
    assert scheduler._r.getstate() == coin
    assert sorts == scheduler._ALLOW_DETERMINISTIC_SCHEDULING


def test_the_names_of_trio_that_are_not_public_are_still_what_they_were() -> None:
    """If this fails after an upgrade of trio: read `Runner`'s loop again, then determinism.py."""
    source = Path(scheduler.__file__).read_text()
    assert isinstance(scheduler._r, random.Random)
    assert isinstance(scheduler._ALLOW_DETERMINISTIC_SCHEDULING, bool)
    decides = "if _ALLOW_DETERMINISTIC_SCHEDULING:"
    assert decides in source
    assert "batch.sort(key=lambda t: t._counter)" in source.split(decides)[1][:700]
