"""Who computes a sweep's runs: this process, local ones, or a Ray cluster (extra `ray`).

Whoever does, results come in the order in which they were asked for, and few are awaited at once:
memory does not grow with the sweep.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any, Final, Generic, Protocol, TypeVar

AHEAD: Final = 4  # runs asked for, for each worker, before the oldest of them is over
WORKERS_MAX: Final = 10_000

_T = TypeVar("_T")
_R = TypeVar("_R")
_Task = TypeVar("_Task", contravariant=True)
_Result = TypeVar("_Result", covariant=True)


class Pool(Protocol[_Task, _Result]):
    """Computes one function."""

    def submit(self, task: _Task) -> Any:
        """What `result` will want."""

    def result(self, handle: Any) -> _Result:
        """Waits for it, and raises what the function raised."""

    def stop(self) -> None:
        """Whatever is still computed is let go."""


class Here(Generic[_T, _R]):
    """In this process, when the result is asked for."""

    def __init__(self, compute: Callable[[_T], _R]) -> None:
        self._compute = compute

    def submit(self, task: _T) -> _T:
        return task

    def result(self, handle: _T) -> _R:
        return self._compute(handle)

    def stop(self) -> None:
        """Nothing is under way."""


class Local(Generic[_T, _R]):
    """In processes of this machine, which end when this one does."""

    def __init__(self, compute: Callable[[_T], _R], workers: int) -> None:
        """`compute`: a module's function, as the processes import it."""
        self._compute = compute
        spawn = multiprocessing.get_context("spawn")
        self._others = frozenset(multiprocessing.active_children())
        self._pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_worker)

    def submit(self, task: _T) -> Future[_R]:
        return self._pool.submit(self._compute, task)

    def result(self, handle: Future[_R]) -> _R:
        return handle.result()

    def stop(self) -> None:
        for process in set(multiprocessing.active_children()) - self._others:
            process.terminate()
        self._pool.shutdown(cancel_futures=True)


class Ray(Generic[_T, _R]):
    """On a Ray cluster, or Ray's own processes here where `address` is empty."""

    def __init__(self, compute: Callable[[_T], _R], address: str = "") -> None:
        self._ray: Any = importlib.import_module("ray")
        self._ray.init(address=address or None)
        self._remote = self._ray.remote(compute)

    def submit(self, task: _T) -> Any:
        return self._remote.remote(task)

    def result(self, handle: Any) -> _R:
        found: _R = self._ray.get(handle)
        return found

    def stop(self) -> None:
        self._ray.shutdown()


def in_order(pool: Pool[_T, _R], tasks: Iterable[_T], workers: int) -> Iterator[_R]:
    """Results in the order of the tasks; at most AHEAD for each worker are under way."""
    waiting: deque[Any] = deque()
    for task in tasks:
        waiting.append(pool.submit(task))
        if len(waiting) >= AHEAD * workers:
            yield pool.result(waiting.popleft())
    while waiting:
        yield pool.result(waiting.popleft())


def _worker() -> None:
    """Ctrl-C is for the first process to hear. One that was killed cannot tell its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
