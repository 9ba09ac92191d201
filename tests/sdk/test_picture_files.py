"""Image files become pixels: any size and kind within bounds, and nothing else."""

from __future__ import annotations

import struct
import sys
import zlib
from contextlib import suppress
from io import BytesIO

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.picture_files import FILE_BYTES_MAX, PIXELS_MAX, pixels_of, target_sizes
from assay_protocol.errors import AssayError
from assay_protocol.images import check_images
from assay_protocol.limits import IMAGES_BYTES_MAX, IMAGES_MAX
from assay_protocol.messages import Image
from sdk.picture_cases import picture_file

RED = (200, 30, 40)


def one(file: bytes, side: int = 64, bytes_max: int = IMAGES_BYTES_MAX) -> Image:
    (image,) = pixels_of([file], side=side, bytes_max=bytes_max)
    return image


def rows(image: Image) -> list[list[tuple[int, ...]]]:
    line = 3 * image.width
    return [
        [tuple(image.pixels[at : at + 3]) for at in range(y * line, (y + 1) * line, 3)]
        for y in range(image.height)
    ]


def of_rows(*given: list[tuple[int, ...]]) -> PIL.Image.Image:
    picture = PIL.Image.new("RGB", (len(given[0]), len(given)))
    picture.putdata([pixel for row in given for pixel in row])  # type: ignore[arg-type]
    return picture


sides = st.integers(1, 20_000)


@given(
    st.lists(st.tuples(sides, sides), min_size=1, max_size=IMAGES_MAX),
    st.integers(1, 4_096),
    st.integers(IMAGES_MAX, IMAGES_BYTES_MAX // 3),
)
def test_all_fit_none_grows_and_small_ones_keep_their_size(
    sizes: list[tuple[int, int]], side: int, pixels_max: int
) -> None:
    targets = target_sizes(sizes, side=side, pixels_max=pixels_max)
    assert sum(width * height for width, height in targets) <= pixels_max
    for (width, height), (wide, high) in zip(sizes, targets, strict=True):
        assert 1 <= wide <= min(width, side)
        assert 1 <= high <= min(height, side)
        if max(width, height) <= side and width * height * len(sizes) <= pixels_max:
            assert (wide, high) == (width, height)
        if min(wide, high) > 20:  # the shape is kept, as far as whole pixels do
            assert wide * height == pytest.approx(high * width, rel=0.1)


def test_what_is_free_is_used() -> None:
    (small, *large) = target_sizes([(10, 10), (900, 900), (900, 900)], side=512, pixels_max=20_100)
    assert small == (10, 10)
    assert large == [(100, 100)] * 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("size", [(4, 3), (300, 100), (1, 900)])
def test_each_kind_is_read_and_made_to_fit(kind: str, size: tuple[int, int]) -> None:
    image = one(picture_file(RED, size, kind))
    assert max(image.width, image.height) == min(64, max(size))
    assert all(abs(byte - RED[at % 3]) < 6 for at, byte in enumerate(image.pixels))
    check_images([image])


def test_several_share_the_room() -> None:
    files = [picture_file(RED, (400, 400)), picture_file(RED, (2, 2))]
    images = pixels_of(files, side=400, bytes_max=30_000)
    assert sum(len(image.pixels) for image in images) <= 30_000
    assert (images[1].width, images[1].height) == (2, 2)
    assert images[0].width > 90


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
        ("LA", (0, 0), (255, 255, 255)),
        ("L", 7, (7, 7, 7)),
        ("1", 1, (255, 255, 255)),
        ("I;16", 0x8000, (128, 128, 128)),
        ("P", 0, (0, 0, 0)),
    ],
)
def test_transparency_is_over_white(mode: str, color: object, expected: tuple[int, ...]) -> None:
    image = one(picture_file(color, (2, 2), mode=mode))
    assert set(map(tuple, rows(image)[0])) == {expected}


def test_a_transparent_palette_is_over_white() -> None:
    image = one(picture_file(0, (2, 2), "GIF", mode="P", transparency=0))
    assert image.pixels == b"\xff" * 12


A, B, C, D = (250, 0, 0), (0, 250, 0), (0, 0, 250), (9, 9, 9)
TURNED = {
    1: [[A, B], [C, D]],
    2: [[B, A], [D, C]],
    3: [[D, C], [B, A]],
    4: [[C, D], [A, B]],
    5: [[A, C], [B, D]],
    6: [[C, A], [D, B]],
    7: [[D, B], [C, A]],
    8: [[B, D], [A, C]],
}


@pytest.mark.parametrize("orientation", TURNED)
def test_a_picture_is_turned_as_its_camera_says(orientation: int) -> None:
    picture, file = of_rows([A, B], [C, D]), BytesIO()
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(file, "PNG", exif=exif)
    assert rows(one(file.getvalue())) == TURNED[orientation]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_a_moving_picture_the_first_frame_counts(kind: str) -> None:
    file = BytesIO()
    first, second = (PIL.Image.new("RGB", (2, 2), color) for color in (A, C))
    exact = {} if kind == "GIF" else {"lossless": True} if kind == "WEBP" else {"default_image": 0}
    first.save(file, kind, save_all=True, append_images=[second], **exact)
    assert rows(one(file.getvalue())) == [[A, A], [A, A]]


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is so large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        whole = name + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        picture_file()[:-40],
        picture_file(kind="JPEG")[:200],
        picture_file(kind="BMP"),
        picture_file(kind="TIFF"),
        bomb(PIXELS_MAX + 1, 1),
        bomb(60_000, 60_000),
        bomb(2**31 - 1, 2**31 - 1),
        bomb(10, 10),
        bytes(FILE_BYTES_MAX + 1),
    ],
    ids=range(12),
)
def test_what_is_no_picture_or_a_bomb_is_refused(file: bytes) -> None:
    with pytest.raises(AssayError) as refused:
        one(file)
    assert refused.value.code == "image_refused"


@given(st.binary(max_size=40), st.integers(0, 400), st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]))
def test_a_damaged_file_is_pixels_or_refused(noise: bytes, at: int, kind: str) -> None:
    file = picture_file(RED, (20, 20), kind)
    at %= len(file)
    with suppress(AssayError):  # and nothing else
        check_images([one(file[:at] + noise + file[at + len(noise) :])])


def test_no_room_beside_the_prompt_is_said() -> None:
    with pytest.raises(AssayError, match="no room"):
        one(picture_file(), bytes_max=2)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    file = picture_file()
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(AssayError, match=r"image_refused.*assay-network\[images\]"):
        one(file)
