"""Jobs with and without images that come, go, are preempted, given up and replayed at random: every
answer has the bits that an engine of its own gives, and nothing is held of who is gone.

`ASSAY_CHAOS=1000` takes a thousand turns of each kind.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from assay_node.engine.interface import PRIORITIES, Chunk, Generate, Replay, Replayed
from assay_protocol.limits import IMAGES_MAX
from assay_protocol.messages import Sampler
from vision_cases import SIDES, image, shown, write_projector, write_seer

pytest.importorskip("llama_cpp")

from assay_node.engine.gallery import Gallery
from assay_node.engine.loop import DecodeLoop

pytestmark = pytest.mark.slow

TURNS = int(os.environ.get("ASSAY_CHAOS", "250"))
CONTEXT = 400
SAMPLER = Sampler(
    temperature=0.9,
    top_k=40,
    top_p=0.95,
    min_p=0.0,
    repetition_penalty=1.2,
    repetition_window=50,
)
Told = tuple[tuple[int, ...], bytes]  # tokens, logits


@dataclass
class World:
    """The loop, another to compare with, and what was asked and told."""

    loop: DecodeLoop
    other: DecodeLoop
    chance: random.Random
    number: int = 0
    asked: dict[int, Generate] = field(default_factory=dict)
    told: dict[int, Told] = field(default_factory=dict)
    whole: list[tuple[Generate, Told]] = field(default_factory=list)
    replays: dict[int, Told] = field(default_factory=dict)
    checked: int = 0

    def turn(self) -> None:
        """One thing happens; most often nothing but a step."""
        match self.chance.choices(("ask", "leave", "replay", "check", "step"), (12, 4, 4, 3, 77)):
            case ["ask"] if len(self.asked) < 12:
                self.ask()
            case ["leave"] if self.asked:
                job = self.chance.choice(sorted(self.asked))
                self.loop.cancel(job)
                del self.asked[job]
                self.told.pop(job, None)
            case ["replay"] if self.whole and len(self.replays) < 4:
                request, told = self.chance.choice(self.whole)
                self.number += 1
                self.replays[self.number] = told
                again = Replay(request.prompt, told[0], 0, SAMPLER, request.seed)
                self.loop.replay(self.number, replace(again, images=request.images))
            case ["check"] if self.whole:
                self.check(*self.chance.choice(self.whole))
            case _:
                self.step()

    def ask(self) -> None:
        chance = self.chance
        prompt = (1, *(chance.randrange(265, 285) for _ in range(chance.choice((0, 1, 5, 60)))))
        sizes = [(chance.randrange(1, 40), 7) for _ in range(chance.choice((0, 1, 1, 2, 3)))]
        images = tuple(image(chance.randrange(12), *size) for size in sizes)
        for one in images:
            after = (chance.randrange(265, 300) for _ in range(chance.choice((0, 2, 9))))
            prompt += (*shown(one, marked=chance.random() < 0.5), *after)
        self.number += 1
        self.asked[self.number] = Generate(
            prompt,
            0,
            chance.choice((1, 5, 40)),
            SAMPLER,
            bytes([self.number % 256]) * 32,
            bytes([self.number % 2]),
            priority=chance.choice(PRIORITIES),
            images=images,
        )
        self.loop.generate(self.number, self.asked[self.number])

    def step(self) -> None:
        for job, event in self.loop.step():
            if isinstance(event, Chunk):
                tokens, logits = self.told.get(job, ((), b""))
                self.told[job] = (tokens + event.tokens, logits + event.logits)
                if event.finish is not None:
                    self.whole.append((self.asked.pop(job), self.told.pop(job)))
            else:
                assert isinstance(event, Replayed), event
                assert (event.drawn, event.logits) == self.replays.pop(job)

    def check(self, request: Generate, told: Told) -> None:
        """Alone, on two threads."""
        self.other.generate(1, request)
        tokens, logits = (), b""
        while not self.other.idle:
            for _, event in self.other.step():
                assert isinstance(event, Chunk)
                tokens, logits = (*tokens, *event.tokens), logits + event.logits
        assert (tokens, logits) == told
        self.checked += 1


@pytest.mark.parametrize("kind", SIDES)
def test_whatever_happens_answers_about_images_keep_their_bits(tmp_path: Path, kind: str) -> None:
    model = write_seer(tmp_path / "model.gguf", arch="gemma3" if kind == "gemma3" else "llama")
    projector = write_projector(tmp_path / "eyes.gguf", kind)
    loop, other = (
        DecodeLoop(
            model, bytes(32), slots=slots, context=CONTEXT, threads=threads, projector=projector
        )
        for slots, threads in ((3, 1), (1, 2))
    )
    gallery = loop._gallery
    assert isinstance(gallery, Gallery)
    gallery._room = IMAGES_MAX  # so that jobs wait for it, and images are forgotten
    world = World(loop, other, random.Random(7))
    for _ in range(TURNS):
        world.turn()
    while not loop.idle:
        world.step()
    for request, told in world.whole[-4:]:
        world.check(request, told)
    assert world.checked >= 4
    assert not world.asked
    assert not world.replays
    assert not gallery._holders
    assert not gallery
    assert len(gallery._kept) <= IMAGES_MAX
    assert loop._shelf.held_bytes == 0
    loop.close()
    other.close()
