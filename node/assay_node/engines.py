"""The engines of one node, opened and closed as its core decides (core/residency.py).

Each lives in a task of its own: closing one, or one that cannot be opened, touches no other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import trio

from assay_node.engine.interface import Engine
from assay_protocol.errors import AssayError

Opener = Callable[[], AbstractAsyncContextManager[Engine]]


@dataclass(slots=True)
class _Life:
    """One engine from its opening to its end."""

    opener: Opener
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    opened: trio.Event = field(default_factory=trio.Event)  # or refused
    ended: trio.Event = field(default_factory=trio.Event)
    engine: Engine | None = None
    refusal: AssayError | ImportError | None = None

    async def live(self) -> None:
        try:
            with self.scope:
                async with self.opener() as self.engine:
                    self.opened.set()
                    await trio.sleep_forever()
        except (AssayError, ImportError) as error:  # the library may be an extra
            self.refusal = error
        except OSError as error:  # its file is gone or cannot be read
            self.refusal = AssayError("model_missing", error.strerror or "")
        finally:
            self.opened.set()
            self.ended.set()


class Engines:
    """Make it with `open_engines`. Engines are named by the model they say they loaded."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._openers: dict[bytes, Opener] = {}
        self._lives: dict[bytes, _Life] = {}
        self._restarts = 0  # of engines closed since

    @property
    def restarts(self) -> int:
        """How often an engine died and was started again."""
        return self._restarts + sum(one.load.restarts for one in self._opened())

    async def add(self, opener: Opener) -> Engine:
        """Open an engine the first time. Raises AssayError if it cannot be opened."""
        life = await self._begin(opener)
        assert life.engine is not None
        key = life.engine.info.model
        assert key not in self._openers, "each model has one engine"
        self._openers[key], self._lives[key] = opener, life
        return life.engine

    async def open(self, key: bytes) -> None:
        """Open an engine again that was closed. Raises AssayError if it cannot be opened."""
        assert key not in self._lives
        try:
            self._lives[key] = await self._begin(self._openers[key])
        except ImportError as error:  # the library was there at the start
            raise AssayError("engine_missing", str(error)) from error

    async def close(self, key: bytes) -> None:
        """Let it go; returns when its memory is free."""
        life = self._lives.pop(key)
        assert life.engine is not None
        self._restarts += life.engine.load.restarts
        life.scope.cancel()
        await life.ended.wait()

    def get(self, key: bytes) -> Engine:
        """An open engine; raises AssayError("engine_failed") for another."""
        life = self._lives.get(key)
        if life is None or life.engine is None:
            raise AssayError("engine_failed", "the model is not loaded")
        return life.engine

    async def _begin(self, opener: Opener) -> _Life:
        life = _Life(opener)
        self._nursery.start_soon(life.live)
        await life.opened.wait()
        if life.refusal is not None:
            raise life.refusal
        return life

    def _opened(self) -> list[Engine]:
        return [life.engine for life in self._lives.values() if life.engine is not None]


@asynccontextmanager
async def open_engines() -> AsyncIterator[Engines]:
    """No engine yet; all that are open at the end are closed."""
    failure: AssayError | ImportError | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield Engines(nursery)
        except (AssayError, ImportError) as error:
            failure = error  # not out of the nursery, which would wrap it in a group
        finally:
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
