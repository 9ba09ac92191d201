"""Makes a run of trio a function of its seed: virtual time, seeded chance, nothing from outside.

    scheduling   tasks that are ready together run in an order the seed decides (trio tosses a coin
                 on purpose, and puts tasks into sets)
    time         trio's clock stands still while anything can run; `time` says the same as it, so a
                 library's caches age by virtual time, too
    chance       `random`, `secrets`, `os.urandom` and `uuid4` draw from the seed
    threads      `trio.to_thread.run_sync` runs its function at once: while a thread worked, the
                 clock would jump to the next deadline
    escapes      a socket, a thread, a process or a real sleep raises Escaped at its call site, and
                 the run ends with it even where somebody catches it

The names of trio that are not public, and all that is patched, are in this file and nowhere else;
tests/simnet/test_determinism.py fails when one of them moves.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sysconfig
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NoReturn, TypeVar

import trio
import trio.testing
from trio._core import _run as scheduler  # the coin, and the order of a batch, have no public names

from assay_network.scopes import single_errors

_Result = TypeVar("_Result")
_Patch = tuple[Any, str, Any]
_STDLIB: Final = sysconfig.get_paths()["stdlib"]
_SITE: Final = sysconfig.get_paths()["purelib"]
_ESCAPES: Final[tuple[tuple[Any, str, str], ...]] = (
    (socket.socket, "__init__", "a socket"),
    (threading.Thread, "start", "a thread"),
    (subprocess.Popen, "__init__", "a process"),
    (os, "fork", "a process"),
    (os, "posix_spawn", "a process"),
    (os, "system", "a process"),
    (time, "sleep", "a real sleep"),
)


class Escaped(Exception):
    """Something in a virtual run reached for the real world. The message names the call site."""


class _Guard:
    """One run: what ended it, if not its function."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.reason: BaseException | None = None

    def halt(self, reason: BaseException) -> None:
        if self.reason is None:
            self.reason = reason
            self.scope.cancel()


_guards: list[_Guard] = []  # of the run under way: none or one


def run_virtual(
    function: Callable[..., Awaitable[_Result]], *args: Any, seed: int = 0, start_us: int = 0
) -> _Result:
    """`trio.run` in virtual time, the same every time. `start_us`: what `time.time()` says first.

    Raises Escaped, what was raised within `halting`, and what `function` raises.
    """
    assert not _guards, "one virtual run at a time: it changes what `time` says to all"
    clock = trio.testing.MockClock(autojump_threshold=0)
    with _seeded(seed), single_errors():
        result: _Result = trio.run(_guarded, function, args, seed, start_us, clock=clock)
    return result


@contextmanager
def halting() -> Iterator[None]:
    """What is raised in here ends the virtual run, whatever swallows it on its way: a host lets no
    error of a handler pass."""
    try:
        yield
    except trio.Cancelled:
        raise
    except BaseException as error:
        _guards[-1].halt(error)
        raise


async def _guarded(
    function: Callable[..., Awaitable[_Result]], args: tuple[Any, ...], seed: int, start_us: int
) -> _Result:
    """Inside trio, whose own socket pair is open by now."""
    guard = _Guard()
    _guards.append(guard)
    try:
        with _replaced(_patches(guard, seed, start_us)), guard.scope:
            result = await function(*args)
    except BaseException:
        if guard.reason is not None:
            raise guard.reason from None
        raise
    finally:
        _guards.pop()
    if guard.reason is not None:
        raise guard.reason
    return result


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Scheduling and `random`, put back afterwards."""
    coin, own = scheduler._r.getstate(), random.getstate()
    scheduler._r.seed(seed)
    random.seed(seed)
    try:
        with _replaced([(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True)]):
            yield
    finally:
        scheduler._r.setstate(coin)
        random.setstate(own)


def _patches(guard: _Guard, seed: int, start_us: int) -> list[_Patch]:
    return [
        *_clocks(start_us),
        *_entropy(seed),
        (trio.to_thread, "run_sync", _run_inline),
        *((where, name, _refusing(guard, what)) for where, name, what in _ESCAPES),
    ]


@contextmanager
def _replaced(patches: list[_Patch]) -> Iterator[None]:
    """A name that is not there any more raises AttributeError."""
    with ExitStack() as stack:
        for where, name, instead in patches:
            stack.callback(setattr, where, name, getattr(where, name))
            setattr(where, name, instead)
        yield


def _clocks(start_us: int) -> list[_Patch]:
    def now_ns() -> int:
        return 1_000 * start_us + round(trio.current_time() * 1e9)

    def now() -> float:
        return start_us / 1e6 + trio.current_time()

    names = ("time", "monotonic", "perf_counter")
    return [(time, name, now) for name in names] + [(time, f"{name}_ns", now_ns) for name in names]


def _entropy(seed: int) -> list[_Patch]:
    drawn = random.Random(f"entropy/{seed}")
    return [(os, "urandom", drawn.randbytes), (random, "_urandom", drawn.randbytes)]


async def _run_inline(
    sync_fn: Callable[..., _Result],
    *args: Any,
    limiter: trio.CapacityLimiter | None = None,
    **_: object,
) -> _Result:
    """As `trio.to_thread.run_sync` with a thread that takes no time; others may run before it."""
    if limiter is None:
        await trio.lowlevel.checkpoint()
        return sync_fn(*args)
    borrower = object()
    await limiter.acquire_on_behalf_of(borrower)
    try:
        return sync_fn(*args)
    finally:
        limiter.release_on_behalf_of(borrower)


def _refusing(guard: _Guard, what: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        escaped = Escaped(f"{what} in a virtual run: {_call_site()}")
        guard.halt(escaped)
        raise escaped

    return refuse


def _call_site() -> str:
    """The innermost line that is neither ours nor the standard library's."""
    for frame in reversed(traceback.extract_stack()):
        library = frame.filename.startswith(_STDLIB) and not frame.filename.startswith(_SITE)
        if frame.filename != __file__ and not library:
            return f"{frame.filename}:{frame.lineno} in {frame.name}"
    return "nowhere known"
