"""The grammars of a loop's jobs: read beside the decode loop, then followed token by token.

Reading a hostile grammar takes up to half a second, so a thread of its own does it while other
answers go on; a mask is bounded (masks.py) and is made between two decodes. The vocabulary is made
by the first job that brings a grammar: jobs without one pay nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Final

from assay_node.engine.interface import Generate, Replay
from assay_protocol.errors import AssayError
from assay_protocol.margins import Allowed

if TYPE_CHECKING:
    from assay_protocol.masks import Matcher, Vocabulary

READING_MAX: Final = 256
WAIT_SECONDS: Final = 0.02  # a loop with nothing else to do looks again so soon

Request = Generate | Replay


def dialect() -> str:
    """What computes masks here, "" without the `grammar` extra."""
    try:
        from assay_protocol.masks import DIALECT
    except ImportError:
        return ""
    return DIALECT


class Grammars:
    """Grammars being read, in the order they came. `pieces` gives the vocabulary's bytes."""

    def __init__(self, pieces: Callable[[], Sequence[bytes]], eog: frozenset[int]) -> None:
        self._pieces, self._eog = pieces, eog
        self._vocabulary: Vocabulary | None = None
        self._reader: ThreadPoolExecutor | None = None
        self._reading: deque[tuple[int, Request, Future[Matcher]]] = deque()

    def __bool__(self) -> bool:
        """Whether any is being read."""
        return bool(self._reading)

    def read(self, job: int, request: Request) -> None:
        """Begin to read the request's grammar; raises AssayError("busy")."""
        if len(self._reading) >= READING_MAX:
            raise AssayError("busy")
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, "grammars")
        future = self._reader.submit(self.matcher, request)
        self._reading.append((job, request, future))

    def matcher(self, request: Request) -> Matcher:
        """A matcher where the request's first draw is; raises AssayError("grammar_refused")."""
        from assay_protocol.masks import Matcher, Vocabulary

        assert request.grammar is not None
        if self._vocabulary is None:
            self._vocabulary = Vocabulary(self._pieces(), sorted(self._eog))
        drawn = request.prompt[len(request.prompt) - request.start :]
        return Matcher(self._vocabulary, request.grammar, drawn)

    def ready(self, *, block: bool) -> list[tuple[int, Request, Matcher | AssayError]]:
        """Those read by now, oldest first; with `block` waits a moment for the oldest one."""
        if block and self._reading:
            wait([self._reading[0][2]], timeout=WAIT_SECONDS)
        found: list[tuple[int, Request, Matcher | AssayError]] = []
        while self._reading and self._reading[0][2].done():
            job, request, future = self._reading.popleft()
            try:
                found.append((job, request, future.result()))
            except AssayError as error:
                found.append((job, request, error))
        return found

    def cancel(self, job: int) -> None:
        """Forget it; nothing happens if it is not being read."""
        for one in self._reading:
            if one[0] == job:
                one[2].cancel()
                self._reading.remove(one)
                return

    def close(self) -> None:
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)


class Follower:
    """What a grammar allows along an answer that somebody else drew."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher: Matcher | None = matcher

    def along(self, tokens: Sequence[int]) -> list[Allowed]:
        """The mask of each of the next `tokens`; None after the first one outside its mask.

        Raises AssayError("grammar_refused") if one is too complex to be made.
        """
        return [self._next(token) for token in tokens]

    def _next(self, token: int) -> Allowed:
        if self._matcher is None:
            return None
        allowed = self._matcher.allowed()
        if token in allowed:
            self._matcher.advance(token)
        else:
            self._matcher = None
        return allowed
