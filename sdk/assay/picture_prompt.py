"""A prompt with pictures: decoded in a thread, made to fit one job, spelled between the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from assay.picture_files import pixels_of
from assay.run_places import RunPlaces
from assay_protocol.images import spelled
from assay_protocol.limits import IMAGE_JOB_BYTES_MAX, IMAGES_BYTES_MAX, OUTPUT_TOKENS_MAX

if TYPE_CHECKING:
    from assay_protocol.cards import Vision
    from assay_protocol.messages import Image

DECODERS_MAX: Final = 2  # threads of a process; each may hold 200 MB
_decoders: Final = RunPlaces("picture_decoders", DECODERS_MAX)


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """A prompt as its model reads it: its tokens, and the images they spell, in order."""

    tokens: tuple[int, ...]
    images: tuple[Image, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)


async def spell_pictures(
    vision: Vision, pieces: Sequence[tuple[int, ...]], files: Sequence[bytes]
) -> PromptTokens:
    """The prompt of `pieces` of text with a picture between each two of them.

    Raises AssayError("image_refused").
    """
    assert len(pieces) == len(files) + 1
    around = len(vision.before) + vision.tokens + len(vision.after)
    length = sum(map(len, pieces)) + around * len(files) + OUTPUT_TOKENS_MAX
    room = min(IMAGES_BYTES_MAX, IMAGE_JOB_BYTES_MAX - 4 * length)

    def decode() -> tuple[Image, ...]:
        return pixels_of(files, side=vision.side, bytes_max=room)

    images = await trio.to_thread.run_sync(decode, limiter=_decoders.limiter())
    tokens = list(pieces[0])
    for image, following in zip(images, pieces[1:], strict=True):
        tokens += (*vision.before, *spelled(image, vision.tokens), *vision.after, *following)
    return PromptTokens(tuple(tokens), images)
