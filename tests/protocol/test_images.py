from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol.errors import ProtocolError
from assay_protocol.images import IMAGE_TOKEN, check_images, holds_images, spans, spelled
from assay_protocol.limits import IMAGES_BYTES_MAX, IMAGES_MAX
from assay_protocol.messages import Image

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
