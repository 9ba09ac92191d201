"""What a job tells its caller, in order, for one reader: tokens as they come and changes of node.

What a slow reader missed comes as one notice: tokens that wait behind each other, of one node. So a
reader is never behind by more than two notices, and a token that came alone is told alone.
"""

from __future__ import annotations

import collections
from dataclasses import replace

import trio

from assay.events import PromptTold, Resumed, TokensDrawn
from assay_network.bell import Bell

Notice = PromptTold | TokensDrawn | Resumed


class Notices:
    """An async iterator; it ends once `close` was called and all was read.

    At most one notice per token of an answer and one of its prompt are put in, so it needs no
    bound of its own.
    """

    def __init__(self) -> None:
        self._waiting: collections.deque[Notice] = collections.deque()
        self._reader = Bell()
        self._closed = False

    def put(self, notice: Notice) -> None:
        """Tell the reader; never waits."""
        self._waiting.append(notice)
        self._reader.ring()

    def close(self) -> None:
        """Nothing follows."""
        self._closed = True
        self._reader.ring()

    def __aiter__(self) -> Notices:
        return self

    async def __anext__(self) -> Notice:
        waiting = self._waiting
        if waiting:  # no turn for others: the next call waits, for nothing is put in meanwhile
            await trio.lowlevel.checkpoint_if_cancelled()
        while not waiting:
            if self._closed:
                raise StopAsyncIteration
            await self._reader.wait()
        notice = waiting.popleft()
        if isinstance(notice, TokensDrawn) and waiting:
            return self._joined(notice)
        return notice

    def _joined(self, first: TokensDrawn) -> TokensDrawn:
        """With the tokens behind it; a Resumed stands between those of two nodes."""
        tokens, logprobs = list(first.tokens), list(first.logprobs)
        while self._waiting and isinstance(later := self._waiting[0], TokensDrawn):
            self._waiting.popleft()
            tokens += later.tokens
            logprobs += later.logprobs
        return replace(first, tokens=tuple(tokens), logprobs=tuple(logprobs))
