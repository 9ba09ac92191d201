"""Does decoding equal replay, bit for bit, on this machine with this file? Measured, never assumed.

Whether a node may claim an exact numerics class depends on file format, instruction set and
library build. This generates several answers at once, replays each, and counts every difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from assay_node.engine.interface import Chunk, Generate, Replay, Replayed
from assay_node.engine.loop import DecodeLoop, Event
from assay_protocol.messages import Sampler

_PROMPT_LENGTHS: Final = (5, 40, 75, 130, 23, 64, 200, 12)
_SAMPLER: Final = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)


@dataclass(frozen=True, slots=True)
class Exactness:
    """Differences between answers decoded together and their replays."""

    tokens: int
    tokens_differing: int
    logits_differing: int  # bit patterns of drawn tokens' logits
    logit_difference_max: float
    margin_max: float
    class_id: str

    @property
    def exact(self) -> bool:
        return self.tokens_differing == 0 and self.logits_differing == 0


def selfcheck(
    path: Path, *, sequences: int = 8, tokens: int = 48, slots: int = 4, threads: int = 1
) -> Exactness:
    """Blocks while it measures; raises AssayError as the engine does."""
    loop = DecodeLoop(path, bytes(32), slots=slots, context=512, threads=threads)
    try:
        requests = [_request(number, tokens, loop.info.n_vocab) for number in range(sequences)]
        return _compare(loop, requests)
    finally:
        loop.close()


def _compare(loop: DecodeLoop, requests: list[Generate]) -> Exactness:
    written: dict[int, list[int]] = {number: [] for number in range(len(requests))}
    logits = dict.fromkeys(written, b"")
    for number, request in enumerate(requests):
        loop.generate(number, request)
    for number, event in _drain(loop):
        if isinstance(event, Chunk):
            written[number] += event.tokens
            logits[number] += event.logits
    replayed: dict[int, Replayed] = {}
    for number, request in enumerate(requests):
        output = tuple(written[number])
        loop.replay(number, Replay(request.prompt, output, 0, request.sampler, request.seed))
        replayed |= {n: event for n, event in _drain(loop) if isinstance(event, Replayed)}
    here = np.frombuffer(b"".join(logits[number] for number in written), "<f4")
    there = np.frombuffer(b"".join(replayed[number].logits for number in written), "<f4")
    drawn = [token for number in written for token in replayed[number].drawn]
    given = [token for number in written for token in written[number]]
    return Exactness(
        tokens=len(given),
        tokens_differing=sum(a != b for a, b in zip(drawn, given, strict=True)),
        logits_differing=int((here.view("<u4") != there.view("<u4")).sum()),
        logit_difference_max=float(np.abs(here - there).max(initial=0.0)),
        margin_max=max(m for number in written for m in replayed[number].margins),
        class_id=loop.info.class_id,
    )


def _drain(loop: DecodeLoop) -> Iterator[Event]:
    while not loop.idle:
        yield from loop.step()


def _request(number: int, tokens: int, n_vocab: int) -> Generate:
    """Arbitrary tokens: what they say does not matter, what they compute does.

    Two of three prompts begin like others, so the prefixes kept in slots are reused, too.
    """
    length = _PROMPT_LENGTHS[number % len(_PROMPT_LENGTHS)]
    prompt = tuple((7919 * (i + 1) + 104_729 * (number % 3)) % n_vocab for i in range(length))
    return Generate(prompt, 0, tokens, _SAMPLER, bytes([number]) * 32)
