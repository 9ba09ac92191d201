"""Does decoding equal replay, bit for bit, on this machine with this file? Measured, never assumed.

    python -m assay_node.engine.selfcheck MODEL.gguf --profile JSON   (started by trials.py)

Whether a node may claim an exact numerics class depends on file format, instruction set, library
build and road. This generates answers that come and go, some of them cancelled, their prefixes
reused and copied; replays each that ended; and counts every difference. Then it measures the rates.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from assay_node.engine.interface import Chunk, Generate, Replay, Replayed
from assay_node.engine.loop import DecodeLoop, Event
from assay_node.engine.profiles import FLASH, Profile, unpack
from assay_protocol.errors import AssayError
from assay_protocol.messages import Sampler

CONTEXT: Final = 512
SLOTS: Final = 4
STEPS_BETWEEN: Final = 7  # a new answer begins among others at every stage of theirs
CANCEL_EVERY: Final = 5
PREFILL_TOKENS: Final = 256
DECODE_TOKENS: Final = 32
_PROMPT_LENGTHS: Final = (5, 40, 75, 130, 23, 64, 200, 12)
_SAMPLER: Final = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)


@dataclass(frozen=True, slots=True)
class Exactness:
    """Differences between answers decoded together and their replays, and the rates."""

    tokens: int
    tokens_differing: int
    logits_differing: int  # bit patterns of drawn tokens' logits
    logit_difference_max: float
    margin_max: float
    class_id: str
    prefill_tps: float = 0.0
    decode_tps: float = 0.0  # all slots together

    @property
    def exact(self) -> bool:
        return self.tokens > 0 and self.tokens_differing == 0 and self.logits_differing == 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="assay_node.engine.selfcheck", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--profile", type=json.loads, default=FLASH.packed(), help="JSON")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(argv)
    try:
        result = selfcheck(given.model, profile=unpack(given.profile), threads=given.threads)
    except AssayError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(asdict(result)))
    return 0


def selfcheck(
    path: Path,
    *,
    profile: Profile = FLASH,
    sequences: int = 12,
    tokens: int = 32,
    threads: int = 1,
    rates: bool = True,
) -> Exactness:
    """Blocks while it measures; raises AssayError as the engine does."""
    loop = DecodeLoop(
        path, bytes(32), slots=SLOTS, context=CONTEXT, threads=threads, profile=profile
    )
    try:
        requests = [_request(number, tokens, loop.info.n_vocab) for number in range(sequences)]
        prefill, decode = _rates(loop) if rates else (0.0, 0.0)
        return _compare(loop, requests, prefill, decode)
    finally:
        loop.close()


def _compare(
    loop: DecodeLoop, requests: list[Generate], prefill: float, decode: float
) -> Exactness:
    written: dict[int, list[int]] = {number: [] for number in range(len(requests))}
    logits = dict.fromkeys(written, b"")
    for number, event in _churn(loop, requests):
        if isinstance(event, Chunk):
            written[number] += event.tokens
            logits[number] += event.logits
    ended = [number for number in written if written[number]]
    replayed: dict[int, Replayed] = {}
    for number in ended:
        request, output = requests[number], tuple(written[number])
        loop.replay(number, Replay(request.prompt, output, 0, request.sampler, request.seed))
        replayed |= {n: event for n, event in _drain(loop) if isinstance(event, Replayed)}
    here = np.frombuffer(b"".join(logits[number] for number in ended), "<f4")
    there = np.frombuffer(b"".join(replayed[number].logits for number in ended), "<f4")
    drawn = [token for number in ended for token in replayed[number].drawn]
    given = [token for number in ended for token in written[number]]
    return Exactness(
        tokens=len(given),
        tokens_differing=sum(a != b for a, b in zip(drawn, given, strict=True)),
        logits_differing=int((here.view("<u4") != there.view("<u4")).sum()),
        logit_difference_max=float(np.abs(here - there).max(initial=0.0)),
        margin_max=max((m for number in ended for m in replayed[number].margins), default=0.0),
        class_id=loop.info.class_id,
        prefill_tps=prefill,
        decode_tps=decode,
    )


def _churn(loop: DecodeLoop, requests: list[Generate]) -> Iterator[Event]:
    """Run all, begun a few steps apart; what was drawn of a cancelled one counts, too."""
    for number, request in enumerate(requests):
        loop.generate(number, request)
        if number >= SLOTS:
            for _ in range(STEPS_BETWEEN):
                yield from loop.step()
        if number % CANCEL_EVERY == CANCEL_EVERY - 1:
            loop.cancel(number - 1)
    yield from _drain(loop)


def _rates(loop: DecodeLoop) -> tuple[float, float]:
    """Prefill of one prompt, then decoding in all slots, in tokens per second."""
    loop.generate(0, _request(0, 2, loop.info.n_vocab, 64))  # the first decode is slow: warm up
    for _ in _drain(loop):
        continue
    began = time.perf_counter()
    loop.generate(0, _request(1, 1, loop.info.n_vocab, PREFILL_TOKENS))
    for _ in _drain(loop):
        continue
    middle = time.perf_counter()
    for number in range(SLOTS):
        loop.generate(number, _request(number + 2, DECODE_TOKENS, loop.info.n_vocab, 1))
    drawn = sum(len(event.tokens) for _, event in _drain(loop) if isinstance(event, Chunk))
    return PREFILL_TOKENS / (middle - began), drawn / (time.perf_counter() - middle)


def _drain(loop: DecodeLoop) -> Iterator[Event]:
    while not loop.idle:
        yield from loop.step()


def _request(number: int, tokens: int, n_vocab: int, length: int | None = None) -> Generate:
    """Arbitrary tokens: what they say does not matter, what they compute does.

    Two of three prompts begin like others, so the prefixes kept in slots are reused, too.
    """
    length = length or _PROMPT_LENGTHS[number % len(_PROMPT_LENGTHS)]
    prompt = tuple((7919 * (i + 1) + 104_729 * (number % 3)) % n_vocab for i in range(length))
    return Generate(prompt, 0, tokens, _SAMPLER, bytes([number]) * 32)


if __name__ == "__main__":
    sys.exit(main())
