"""Images in a prompt: each stands there as tokens that spell its digest.

A prompt is a row of u32 tokens. Those below IMAGE_TOKEN are the vocabulary's; an image takes as
many places as its model makes of one (`Vision.tokens`), filled with numbers from IMAGE_TOKEN on
that are 31 bits each of a stream which only its pixels give (`spelled`). So whatever binds, counts,
prices, compares or keeps a prompt does so with images in it and knows nothing of them: the prompt's
hash commits to the pixels, a cached prefix ends where an image differs, and no picture's bytes are
in a receipt. The pixels themselves travel beside the prompt, from the client to the node and
sealed to auditors, and are held against it there (`spans`).

They travel as plain numbers, not as a compressed file: a node runs no decoder of image files on
what a stranger sends, and no two nodes can decode one file differently.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final

from assay_protocol.errors import ProtocolError
from assay_protocol.limits import (
    IMAGE_JOB_BYTES_MAX,
    IMAGE_SIDE_MAX,
    IMAGE_TOKENS_MIN,
    IMAGES_BYTES_MAX,
    IMAGES_MAX,
)
from assay_protocol.messages import Image

IMAGE_TOKEN: Final = 1 << 31  # and above: no vocabulary goes so far
_SIZE: Final = struct.Struct("<II")  # width, height
_DIGEST: Final = b"assay image"
_SPELL: Final = b"assay spell"
_BLOCK_TOKENS: Final = 16  # that one hash of 64 bytes spells


def image_digest(image: Image) -> bytes:
    """BLAKE2b-256 of its size and pixels."""
    size = _SIZE.pack(image.width, image.height)
    return blake2b(size + image.pixels, digest_size=32, person=_DIGEST).digest()


def pixel_bytes(images: Sequence[Image]) -> int:
    return sum(len(one.pixels) for one in images)


def check_images(images: Sequence[Image]) -> None:
    """Raise ProtocolError("image_refused") unless they are well formed and within the limits."""
    if len(images) > IMAGES_MAX or pixel_bytes(images) > IMAGES_BYTES_MAX:
        raise ProtocolError("image_refused", "too many images, or too large ones, for one job")
    if any(len(one.pixels) != 3 * one.width * one.height for one in images):
        raise ProtocolError("image_refused", "an image's pixels are not its width times its height")


def spelled(image: Image, count: int) -> tuple[int, ...]:
    """The `count` tokens that stand for it in a prompt."""
    assert count >= IMAGE_TOKENS_MIN
    digest = image_digest(image)
    blocks = (
        blake2b(struct.pack("<I", number), key=digest, person=_SPELL).digest()
        for number in range(-(-count // _BLOCK_TOKENS))
    )
    words = struct.unpack(f"<{count}I", b"".join(blocks)[: 4 * count])
    return tuple(word | IMAGE_TOKEN for word in words)


def check_frame(prompt_tokens: int, images: Sequence[Image]) -> None:
    """Raise ProtocolError("image_refused") unless prompt and pixels fit into one frame together."""
    if images and 4 * prompt_tokens + pixel_bytes(images) > IMAGE_JOB_BYTES_MAX:
        raise ProtocolError("image_refused", "prompt and images are too large together")


def check_prompt(
    prompt: Sequence[int],
    images: Sequence[Image],
    *,
    n_vocab: int,
    count: int,
    answered: int = 0,
) -> None:
    """Check a prompt of a model that makes `count` places of an image (0: it reads none).

    Its last `answered` tokens are an answer's, and so of the vocabulary. Raises ProtocolError:
    "malformed" for other tokens than the vocabulary's and the images', "image_refused" or
    "image_mismatch".
    """
    highest = max(prompt, default=0)
    if (images or highest >= IMAGE_TOKEN) and not count:
        raise ProtocolError("image_refused", "the model reads no images")
    check_frame(len(prompt), images)
    spans(prompt, images, count)
    words = (token for token in prompt if token < IMAGE_TOKEN) if images else prompt
    if max(words, default=0) >= n_vocab:
        raise ProtocolError("malformed", "a token outside the vocabulary")
    if images and holds_images(prompt[len(prompt) - answered :]):
        raise ProtocolError("malformed", "an image within the answer")


def pack_images(images: Sequence[Image]) -> bytes:
    """As a receipt record keeps them: u32 width and height of each, little-endian, its pixels."""
    return b"".join(_SIZE.pack(one.width, one.height) + one.pixels for one in images)


def unpack_images(data: bytes) -> tuple[Image, ...]:
    """Raises ProtocolError("malformed") for bytes that `pack_images` does not make."""
    images: list[Image] = []
    at = 0
    while at < len(data):
        if len(images) == IMAGES_MAX or len(data) - at < _SIZE.size:
            raise ProtocolError("malformed", "not a row of images")
        width, height = _SIZE.unpack_from(data, at)
        begin, end = at + _SIZE.size, at + _SIZE.size + 3 * width * height
        if not 1 <= min(width, height) <= max(width, height) <= IMAGE_SIDE_MAX or end > len(data):
            raise ProtocolError("malformed", "not a row of images")
        images.append(Image(width=width, height=height, pixels=data[begin:end]))
        at = end
    return tuple(images)


def spells(prompt: Sequence[int], images: Sequence[Image]) -> bool:
    """Whether the prompt spells these images and no others, however many places its model gives
    one."""
    places = sum(token >= IMAGE_TOKEN for token in prompt)
    count, rest = divmod(places, len(images)) if images else (places, places)
    if rest or count < IMAGE_TOKENS_MIN:
        return not places and not images
    try:
        spans(prompt, images, count)
    except ProtocolError:
        return False
    return True


def holds_images(prompt: Sequence[int]) -> bool:
    return bool(prompt) and max(prompt) >= IMAGE_TOKEN


def spans(prompt: Sequence[int], images: Sequence[Image], count: int) -> list[int]:
    """Where in `prompt` each of `images` begins, in order; each takes `count` places (0: none may).

    Raises ProtocolError: "image_refused" (check_images) or "image_mismatch" unless the images are
    exactly those that the prompt spells, one after the other, each whole.
    """
    check_images(images)
    return list(_begins(prompt, images, count))


def _begins(prompt: Sequence[int], images: Sequence[Image], count: int) -> Iterator[int]:
    place = 0
    for image in images:
        while place < len(prompt) and prompt[place] < IMAGE_TOKEN:
            place += 1
        end = place + count
        if count == 0 or tuple(prompt[place:end]) != spelled(image, count):
            raise ProtocolError("image_mismatch")
        yield place
        place = end
    if holds_images(prompt[place:]):
        raise ProtocolError("image_mismatch", "the prompt spells an image that is missing")
