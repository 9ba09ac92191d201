"""Tells a model's reasoning from its answer, however the text of both comes in pieces.

What might be the beginning of a mark is held back until it is known, so nothing given out is ever
taken back. Blanks beside a mark belong to it. All other text comes out once, in its order, as the
one or the other; an answer that ends within its reasoning is reasoning alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

HEAD_CHARACTERS_MAX: Final = 256  # of a message: its role, channel and recipient
START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
_ENDS: Final = ("<|end|>", "<|return|>", "<|call|>")
_BREAKS: Final = (*_ENDS, START, CHANNEL)  # an end that is a silent token is followed by these
_HEADS: Final = (START, CHANNEL, "to=")
_CHANNEL: Final = re.compile(r"<\|channel\|>\s*(\w+)")
_FUNCTION: Final = re.compile(r"\bto=functions\.([A-Za-z0-9_-]{1,64})")

Said = tuple[str, str]  # what came of the reasoning, and of the answer


class _Place(Enum):
    BEGIN = auto()  # nothing but blanks came, or the beginning of the opening mark
    INSIDE = auto()
    AFTER = auto()  # the closing mark came, and nothing but blanks since
    ANSWER = auto()


class MarkSplit:
    """Reasoning stands between two marks, at the answer's beginning and nowhere else: an
    answer that speaks of the marks keeps them. `inside`: the prompt has opened it; an
    opening mark that is then written again is not told."""

    def __init__(self, opening: str, closing: str, *, inside: bool = False) -> None:
        self._opening, self._closing, self._opened = opening, closing, inside
        self._place, self._held, self._blank = _Place.BEGIN, "", True

    @property
    def inside(self) -> bool:
        """Whether what comes next is reasoning, unless a mark changes it."""
        begun = self._place is _Place.BEGIN and self._opened
        return begun or self._place is _Place.INSIDE

    def push(self, text: str) -> Said:
        """What of the text so far can be given out now, beyond what was."""
        if self._place is _Place.ANSWER:
            return "", text
        self._held += text
        if self._place is _Place.BEGIN and not self._begin():
            return "", ""
        reasoning = self._reasoned() if self._place is _Place.INSIDE else ""
        if self._place is _Place.AFTER:
            self._held = self._held.lstrip()
            if self._held:
                self._place = _Place.ANSWER
        return reasoning, self._give(len(self._held)) if self._place is _Place.ANSWER else ""

    def flush(self) -> Said:
        """The rest, at the end: what was begun was no mark."""
        rest = self._give(len(self._held))
        if self._place is _Place.AFTER or (self.inside and not rest.strip()):
            return "", ""
        if not self.inside:
            return "", rest
        return rest.lstrip() if self._blank else rest, ""

    def _begin(self) -> bool:
        """Whether it is known where the answer begins."""
        begun = self._held.lstrip()
        if len(begun) < len(self._opening) and self._opening.startswith(begun):
            return False
        if begun.startswith(self._opening):
            self._held, self._place = begun[len(self._opening) :], _Place.INSIDE
        else:
            self._place = _Place.INSIDE if self._opened else _Place.ANSWER
        return True

    def _reasoned(self) -> str:
        if self._blank:
            self._held = self._held.lstrip()
        closed = self._held.find(self._closing)
        end = closed if closed >= 0 else len(self._held) - _begun(self._held, (self._closing,))
        reasoning = self._give(len(self._held[:end].rstrip()))
        self._blank = self._blank and not reasoning
        if closed >= 0:
            self._held = self._held.lstrip()[len(self._closing) :]
            self._place = _Place.AFTER
        return reasoning

    def _give(self, count: int) -> str:
        out, self._held = self._held[:count], self._held[count:]
        return out


class ChannelSplit:
    """Messages with heads (harmony): the channel `analysis` is reasoning, a message to a function
    is told as a call in <tool_call> tags, and all others are the answer. What has no head, such as
    an answer drawn under a grammar, is the answer, too."""

    def __init__(self) -> None:
        self._held = ""
        self._head = True  # one is read
        self._said = [False, False]  # whether reasoning, or an answer, came before
        self._kind = 1  # of the message under way: 0 reasoning, 1 answer
        self._after = ""  # what closes it
        self._open = ""  # what opens it, until it has come
        self._skip = 0  # characters of a mark that begins no head, and is text

    @property
    def inside(self) -> bool:
        return not self._head and self._kind == 0

    def push(self, text: str) -> Said:
        self._held += text
        out = ["", ""]
        while self._read_head() if self._head else self._read_body(out):
            continue
        return out[0], out[1]

    def flush(self) -> Said:
        out = ["", ""]
        if not self._head:
            self._tell(out, self._held)
            self._close_body(out)
        elif not self._held.lstrip().startswith(_HEADS):  # else a head that was cut off
            out[1] = self._held
        self._held = ""
        return out[0], out[1]

    def _read_head(self) -> bool:
        """Whether a body can be read now."""
        begun = self._held.lstrip()
        heads = begun.startswith(_HEADS) or any(one.startswith(begun) for one in _HEADS)
        head, found, body = self._held.partition(MESSAGE)
        short = len(head) <= HEAD_CHARACTERS_MAX
        if heads and short and not found:
            return False
        if heads and short:
            self._held = body
        else:
            head, self._skip = "", int(heads)
        self._begin_body(head)
        return True

    def _begin_body(self, head: str) -> None:
        function, channel = _FUNCTION.search(head), _CHANNEL.search(head)
        self._head, self._open, self._after = False, "", ""
        self._kind = 0 if function is None and channel and channel[1] == "analysis" else 1
        if function is not None:
            self._open = f'<tool_call>\n{{"name": "{function[1]}", "arguments": '
            self._after = "}\n</tool_call>"
        elif self._said[self._kind]:
            self._open = "\n"

    def _read_body(self, out: list[str]) -> bool:
        """Whether a head can be read now."""
        found = [(at, mark) for mark in _BREAKS if (at := self._held.find(mark, self._skip)) >= 0]
        end, mark = min(found, default=(len(self._held) - _begun(self._held, _BREAKS), ""))
        self._tell(out, self._held[:end])
        self._held, self._skip = self._held[end:], 0
        if not mark:
            return False
        self._close_body(out)
        self._held = self._held[len(mark) if mark in _ENDS else 0 :]
        self._head = True
        return bool(self._held)

    def _close_body(self, out: list[str]) -> None:
        if self._after and self._open:  # a call without arguments
            self._tell(out, "{}")
        out[self._kind] += self._after

    def _tell(self, out: list[str], text: str) -> None:
        if text:
            out[self._kind] += self._open + text
            self._open, self._said[self._kind] = "", True


Split = MarkSplit | ChannelSplit


def _begun(text: str, marks: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins one of `marks`."""
    longest = min(max(map(len, marks)) - 1, len(text))
    tail = text[len(text) - longest :]
    if not any(mark[0] in tail for mark in marks):  # as in most text
        return 0
    ends = range(longest, 0, -1)
    return next((n for n in ends if any(mark.startswith(text[-n:]) for mark in marks)), 0)
