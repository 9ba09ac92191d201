from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol.adjustments import adjusted
from assay_protocol.codec import encode
from assay_protocol.errors import ProtocolError
from assay_protocol.hashing import pack_tokens
from assay_protocol.images import (
    IMAGE_TOKEN,
    check_images,
    check_prompt,
    holds_images,
    pack_images,
    spans,
    spelled,
    spells,
    unpack_images,
)
from assay_protocol.limits import (
    GRAMMAR_BYTES_MAX,
    IMAGE_JOB_BYTES_MAX,
    IMAGES_BYTES_MAX,
    IMAGES_MAX,
    MESSAGE_BYTES_MAX,
    SIGNED_BYTES_MAX,
)
from assay_protocol.messages import Image, Sampler, StartJob

COUNT = 20


def image(color: int, width: int = 2, height: int = 3) -> Image:
    return Image(width=width, height=height, pixels=bytes([color]) * (3 * width * height))


texts = st.lists(st.integers(0, IMAGE_TOKEN - 1), max_size=5)


@given(st.lists(st.tuples(texts, st.integers(0, 255)), max_size=4), texts)
def test_images_are_found_where_they_stand(
    parts: list[tuple[list[int], int]], end: list[int]
) -> None:
    prompt: list[int] = []
    begins = []
    for text, color in parts:
        begins.append(len(prompt) + len(text))
        prompt += [*text, *spelled(image(color), COUNT)]
    prompt += end
    images = [image(color) for _, color in parts]
    assert spans(prompt, images, COUNT) == begins
    assert holds_images(prompt) == bool(parts)
    if parts:
        for wrong in (images[:-1], [*images, image(0)], [*images[:-1], image(parts[-1][1] ^ 1)]):
            with pytest.raises(ProtocolError) as refused:
                spans(prompt, wrong, COUNT)
            assert refused.value.code == "image_mismatch"


@given(st.integers(9, 200), st.integers(0, 255), st.integers(0, 255))
def test_an_image_is_spelled_by_its_pixels_and_shape(count: int, one: int, other: int) -> None:
    tokens = spelled(image(one), count)
    assert len(tokens) == count
    assert min(tokens) >= IMAGE_TOKEN
    assert spelled(image(one), count + 1)[:count] == tokens
    assert (spelled(image(other), count) == tokens) == (one == other)
    assert spelled(image(one, 3, 2), count) != tokens


def test_a_part_of_an_image_is_none() -> None:
    tokens = spelled(image(1), COUNT)
    for prompt in (tokens[:-1], tokens[1:], (*tokens, tokens[0]), tokens[::-1]):
        with pytest.raises(ProtocolError, match="image_mismatch"):
            spans(prompt, [image(1)], COUNT)
    with pytest.raises(ProtocolError, match="image_mismatch"):
        spans(tokens, [image(1)], 0)


@pytest.mark.parametrize(
    "images",
    [
        [image(0)] * (IMAGES_MAX + 1),
        [Image(width=2, height=2, pixels=bytes(11))],
        [image(0, 1, IMAGES_BYTES_MAX // 6 + 1)] * 2,
    ],
)
def test_too_many_or_malformed_images_are_refused(images: list[Image]) -> None:
    with pytest.raises(ProtocolError, match="image_refused"):
        check_images(images)


SEEN = spelled(image(1), COUNT)


@pytest.mark.parametrize(
    ("prompt", "images", "count", "answered", "code"),
    [
        ((1, *SEEN, 2), [image(1)], COUNT, 1, None),
        ((1, 2), [], COUNT, 2, None),
        ((1, 2), [], 0, 0, None),
        ((1, 100), [], 0, 0, "malformed"),
        ((1, IMAGE_TOKEN - 1), [], COUNT, 0, "malformed"),
        ((1, *SEEN), [], 0, 0, "image_refused"),  # by a model of text
        ((1, *SEEN), [image(1)], 0, 0, "image_refused"),
        ((1, 2), [image(1)], 0, 0, "image_refused"),
        ((1, *SEEN), [], COUNT, 0, "image_mismatch"),
        ((1, *SEEN, 2), [image(2)], COUNT, 0, "image_mismatch"),
        ((1, *SEEN, *SEEN), [image(1)], COUNT, 0, "image_mismatch"),
        ((1, *SEEN, 2), [image(1)], COUNT + 1, 0, "image_mismatch"),
        ((1, *SEEN, 2), [image(1)], COUNT - 1, 0, "image_mismatch"),
        ((1, *SEEN, 100), [image(1)], COUNT, 0, "malformed"),
        ((1, *SEEN, 2), [image(1)], COUNT, 2, "malformed"),  # an answer that begins in an image
        ((1, *SEEN), [Image(width=2, height=2, pixels=bytes(11))], COUNT, 0, "image_refused"),
    ],
)
def test_a_prompt_is_held_against_vocabulary_and_images(
    prompt: tuple[int, ...], images: list[Image], count: int, answered: int, code: str | None
) -> None:
    def check() -> None:
        check_prompt(prompt, images, n_vocab=100, count=count, answered=answered)

    if code is None:
        check()
        return
    with pytest.raises(ProtocolError) as refused:
        check()
    assert refused.value.code == code


def test_prompt_and_pixels_fit_one_frame_together() -> None:
    large = image(0, 1, IMAGES_BYTES_MAX // 3)
    words = (IMAGE_JOB_BYTES_MAX - len(large.pixels)) // 4 - COUNT
    seen = spelled(large, COUNT)
    for more, fits in ((0, True), (1, False)):
        prompt = (*seen, *[1] * (words + more))
        if fits:
            check_prompt(prompt, [large], n_vocab=100, count=COUNT)
            start = StartJob(
                ticket=bytes(SIGNED_BYTES_MAX),
                nonce=bytes(32),
                prompt=pack_tokens(prompt),
                grammar=bytes(GRAMMAR_BYTES_MAX),
                images=(large,),
            )
            assert len(encode(start)) < MESSAGE_BYTES_MAX
        else:
            with pytest.raises(ProtocolError, match="image_refused"):
                check_prompt(prompt, [large], n_vocab=100, count=COUNT)


def test_an_image_is_not_repeated_by_a_penalty() -> None:
    sampler = Sampler(
        temperature=0.0,
        top_k=0,
        top_p=1.0,
        min_p=0.0,
        repetition_penalty=2.0,
        frequency_penalty=1.0,
    )
    logits = np.arange(4, dtype=np.float32)
    text = (3, *SEEN, 2, 1)
    assert adjusted(logits, sampler, 1, text).tolist() == [0.0, -0.5, 1.0, 1.5]


@given(st.lists(st.builds(image, st.integers(0, 255), st.integers(1, 9), st.integers(1, 9))))
def test_images_are_packed_and_read_again(images: list[Image]) -> None:
    if len(images) > IMAGES_MAX:
        with pytest.raises(ProtocolError, match="malformed"):
            unpack_images(pack_images(images))
    else:
        assert unpack_images(pack_images(images)) == tuple(images)


@given(st.binary(max_size=60))
def test_any_bytes_are_images_or_refused(data: bytes) -> None:
    with suppress(ProtocolError):
        assert pack_images(unpack_images(data)) == data


def test_whether_a_prompt_spells_images_is_told_without_its_model() -> None:
    shown = (1, *SEEN, 2)
    assert spells(shown, [image(1)])
    assert spells((1, 2), [])
    for prompt, images in (
        (shown, []),
        (shown, [image(2)]),
        (shown, [image(1), image(1)]),
        (shown[4:], [image(1)]),
        (SEEN[:8], [image(1)]),
        ((1, 2), [image(1)]),
        (SEEN, [Image(width=2, height=2, pixels=bytes(11))]),
    ):
        assert not spells(prompt, images)
