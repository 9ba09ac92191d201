"""Does decoding equal replay, bit for bit, on this machine with this file? Measured, never assumed.

    python -m assay_node.engine.selfcheck MODEL.gguf --profile JSON   (started by trials.py)

Whether a node may claim an exact numerics class depends on file format, instruction set, library
build and road. This generates answers that come and go, some of them cancelled, their prefixes
reused and copied; replays each of them; resumes each from its middle, on what the slots still hold;
writes some again that are preempted on the way and go on from their saved states, once without
drafts and once with right and wrong ones; and does all that for some of them in a cold engine of
another number of threads and smaller pieces, in which what was preempted is fed again (ways.py). It
counts every difference. Before that it measures the rates, without drafts.
One of the prompts is long enough for the kernels that take one row over long memory.
With a projector (`--projector FILE`) some prompts have an image in them.
With LoRA adapters (`--adapter FILE`, once for each) it does so with answers of each among those
without one: an adapter's format may ask for another road than the model's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Final

import numpy as np

from assay_node.engine.interface import Chunk, Generate
from assay_node.engine.loop import DecodeLoop, Event
from assay_node.engine.profiles import FLASH, Profile, unpack
from assay_node.engine.shelf import SAVED_BYTES_MAX
from assay_node.engine.ways import Compared, Written, collect, compared, drain
from assay_node.models.projectors import read_projector
from assay_protocol.errors import AssayError
from assay_protocol.images import spelled
from assay_protocol.messages import Image, Sampler

CONTEXT: Final = 512
SLOTS: Final = 4
SEQUENCES: Final = 8
TOKENS: Final = 24
STEPS_BETWEEN: Final = 7  # a new answer begins among others at every stage of theirs
CANCEL_EVERY: Final = 5
COLD_ANSWERS: Final = 3  # checked in the other engine, too
PREFILL_TOKENS: Final = 256
DECODE_TOKENS: Final = 32
_PROMPT_LENGTHS: Final = (5, 40, 75, 130, 23, 64, 300, 12)
_BEFORE_IMAGES: Final = 3  # tokens
_SAMPLER: Final = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)


@dataclass(frozen=True, slots=True)
class Exactness:
    """Differences between answers decoded together and what replayed or resumed them; the rates."""

    tokens: int  # compared: one for each token and each way
    tokens_differing: int
    logits_differing: int  # bit patterns of drawn tokens' logits
    logit_difference_max: float
    margin_max: float
    class_id: str
    prefill_tps: float = 0.0
    decode_tps: float = 0.0  # all slots together
    preemptions: int = 0  # among what was compared
    restores: int = 0  # so many of them went on from a saved state
    drafted: int = 0  # tokens, among what was compared
    accepted: int = 0  # so many of them were drawn

    @property
    def exact(self) -> bool:
        return self.tokens > 0 and self.tokens_differing == 0 and self.logits_differing == 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="assay_node.engine.selfcheck", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--profile", type=json.loads, default=FLASH.packed(), help="JSON")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sequences", type=int, default=SEQUENCES)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of an answer")
    parser.add_argument("--no-rates", action="store_true")
    parser.add_argument("--adapter", type=Path, action="append", default=[])
    parser.add_argument("--projector", type=Path)
    given = parser.parse_args(argv)
    try:
        result = selfcheck(
            given.model,
            profile=unpack(given.profile),
            sequences=given.sequences,
            tokens=given.tokens,
            threads=given.threads,
            rates=not given.no_rates,
            adapters=given.adapter,
            projector=given.projector,
        )
    except AssayError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(asdict(result)))
    return 0


def selfcheck(
    path: Path,
    *,
    profile: Profile = FLASH,
    sequences: int = SEQUENCES,
    tokens: int = TOKENS,
    threads: int = 1,
    rates: bool = True,
    adapters: Sequence[Path] = (),
    projector: Path | None = None,
) -> Exactness:
    """Blocks while it measures; raises AssayError as the engine does.

    `sequences` are begun without an adapter, and as many with each of `adapters`.
    """
    files = [(file, bytes([number]) * 32) for number, file in enumerate(adapters)]
    kinds = (None, *(name for _, name in files))
    loop = _open(path, profile, threads, files, projector)
    try:
        requests = [
            replace(_seeing(_request(number, tokens, loop.info.n_vocab), loop), adapter=adapter)
            for number in range(sequences)
            for adapter in kinds
        ]
        prefill, decode = _rates(loop) if rates else (0.0, 0.0)
        written = _write(loop, requests)
        found = compared(loop, written)
        preemptions, restores = loop.preemptions, loop.restores
        drafted, accepted = loop.drafts
        class_id = loop.info.class_id
    finally:
        loop.close()
    half = profile.chunk // 2
    smaller = replace(profile, chunk=half, total=half, replay_chunk=profile.replay_chunk // 2)
    cold = _open(path, smaller, 1 if threads > 1 else 2, files, projector, saved_bytes_max=0)
    try:
        found += compared(cold, written[: COLD_ANSWERS * len(kinds)])
        preemptions += cold.preemptions
        drafted, accepted = drafted + cold.drafts[0], accepted + cold.drafts[1]
    finally:
        cold.close()
    return replace(
        _summary(found, class_id),
        prefill_tps=prefill,
        decode_tps=decode,
        preemptions=preemptions,
        restores=restores,
        drafted=drafted,
        accepted=accepted,
    )


def _open(
    path: Path,
    profile: Profile,
    threads: int,
    adapters: list[tuple[Path, bytes]],
    projector: Path | None,
    saved_bytes_max: int = SAVED_BYTES_MAX,
) -> DecodeLoop:
    image_tokens = 0 if projector is None else read_projector(projector).tokens
    return DecodeLoop(
        path,
        bytes(32),
        slots=SLOTS,
        context=CONTEXT + image_tokens,
        threads=threads,
        profile=profile,
        saved_bytes_max=saved_bytes_max,
        adapters=adapters,
        projector=projector,
        drafts=False,  # but where drafts are what is tried
    )


def _write(loop: DecodeLoop, requests: list[Generate]) -> list[Written]:
    """Decode all among each other; those of which anything was drawn, cancelled ones included."""
    return collect(requests, _churn(loop, requests))


def _churn(loop: DecodeLoop, requests: list[Generate]) -> Iterator[Event]:
    """Run all, begun a few steps apart; what was drawn of a cancelled one counts, too."""
    for number, request in enumerate(requests):
        loop.generate(number, request)
        if number >= SLOTS:
            for _ in range(STEPS_BETWEEN):
                yield from loop.step()
        if number % CANCEL_EVERY == CANCEL_EVERY - 1:
            loop.cancel(number - 1)
    yield from drain(loop)


def _summary(found: list[Compared], class_id: str) -> Exactness:
    pairs = [zip_longest(one.first[0], one.second[0]) for one in found]
    least = [min(len(one.first[1]), len(one.second[1])) for one in found]
    here, there = (
        np.frombuffer(b"".join(text[:end] for text, end in zip(texts, least, strict=True)), "<f4")
        for texts in ([one.first[1] for one in found], [one.second[1] for one in found])
    )
    return Exactness(
        tokens=sum(len(one.first[0]) for one in found),
        tokens_differing=sum(a != b for pair in pairs for a, b in pair),
        logits_differing=int((here.view("<u4") != there.view("<u4")).sum()),
        logit_difference_max=float(np.abs(here - there).max(initial=0.0)),
        margin_max=max((one.margin for one in found), default=0.0),
        class_id=class_id,
    )


def _rates(loop: DecodeLoop) -> tuple[float, float]:
    """Prefill of one prompt, then decoding in all slots, in tokens per second."""
    loop.generate(0, _request(0, 2, loop.info.n_vocab, 64))  # the first decode is slow: warm up
    for _ in drain(loop):
        continue
    began = time.perf_counter()
    loop.generate(0, _request(1, 1, loop.info.n_vocab, PREFILL_TOKENS))
    for _ in drain(loop):
        continue
    middle = time.perf_counter()
    for number in range(SLOTS):
        loop.generate(number, _request(number + 2, DECODE_TOKENS, loop.info.n_vocab, 1))
    drawn = sum(len(event.tokens) for _, event in drain(loop) if isinstance(event, Chunk))
    return PREFILL_TOKENS / (middle - began), drawn / (time.perf_counter() - middle)


def _request(number: int, tokens: int, n_vocab: int, length: int | None = None) -> Generate:
    """Arbitrary tokens: what they say does not matter, what they compute does.

    Two of three prompts begin like others, so the prefixes kept in slots are reused, too.
    """
    length = length or _PROMPT_LENGTHS[number % len(_PROMPT_LENGTHS)]
    prompt = tuple((7919 * (i + 1) + 104_729 * (number % 3)) % n_vocab for i in range(length))
    return Generate(prompt, 0, tokens, _SAMPLER, bytes([number]) * 32)


def _seeing(request: Generate, loop: DecodeLoop) -> Generate:
    """With an image after its first tokens, if the loop reads any: every third has one of two."""
    number = request.seed[0]
    if not loop.info.image_tokens or number % 3 != 1:
        return request
    pixels = bytes((31 * place + 97 * (number % 2) * place * place) % 256 for place in range(3_072))
    image = Image(width=32, height=32, pixels=pixels)
    before, after = request.prompt[:_BEFORE_IMAGES], request.prompt[_BEFORE_IMAGES:]
    prompt = (*before, *spelled(image, loop.info.image_tokens), *after)
    return replace(request, prompt=prompt, images=(image,))


if __name__ == "__main__":
    sys.exit(main())
