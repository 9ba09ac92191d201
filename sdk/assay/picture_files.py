"""Image files to the pixels that travel: decoded on the client's side, within bounds.

A file may come from anybody (a gateway decodes its callers'), so its kind and size are read before
its pixels are, and both are bounded. Of a moving picture the first frame counts. A picture is
turned as its camera says, put on white where it is transparent, and made smaller, never larger: to
what the model makes of one, and so that all of a request fit one job. Nodes and auditors get pixels
and run no decoder (protocol/spec/images.md). Needs the `images` extra.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Final

from assay_protocol.errors import AssayError
from assay_protocol.extras import missing_text
from assay_protocol.limits import IMAGE_SIDE_MAX
from assay_protocol.messages import Image

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

FILE_BYTES_MAX: Final = 8 << 20
PIXELS_MAX: Final = 25_000_000  # of a file, before it is made smaller: 200 MB while it is decoded
_FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF")
_UNREADABLE: Final = f"no {', '.join(_FORMATS[:-1])} or GIF that can be read"
_CHANNELS: Final = 3


def pixels_of(files: Sequence[bytes], *, side: int, bytes_max: int) -> tuple[Image, ...]:
    """The pixels of each file, within `side` x `side`; of all, `bytes_max` bytes.

    Blocks for as long as decoding takes. Raises AssayError("image_refused").
    """
    sizes = [_read_size(file) for file in files]
    targets = target_sizes(sizes, side=min(side, IMAGE_SIDE_MAX), pixels_max=bytes_max // _CHANNELS)
    return tuple(_pixels(file, size) for file, size in zip(files, targets, strict=True))


def target_sizes(
    sizes: Sequence[tuple[int, int]], *, side: int, pixels_max: int
) -> list[tuple[int, int]]:
    """What each (width, height) becomes: as it is, or smaller. Those that need little room keep it,
    the others share what is left. Raises AssayError("image_refused") if not all have a pixel."""
    if len(sizes) > pixels_max:
        raise AssayError("image_refused", "beside such a long prompt there is no room for images")
    fitting = [_shrunk(size, side, side * side) for size in sizes]
    left, share = pixels_max, 0
    for place, area in enumerate(sorted(width * height for width, height in fitting)):
        share = left // (len(sizes) - place)
        if area > share:
            break
        left -= area
    else:
        return fitting
    return [_shrunk(size, side, share) for size in sizes]


def _shrunk(size: tuple[int, int], side: int, pixels_max: int) -> tuple[int, int]:
    width, height = size
    if max(size) <= side and width * height <= pixels_max:
        return size
    scale = min(side / max(size), math.sqrt(pixels_max / (width * height)))
    narrow = max(1, math.floor(min(size) * scale))
    wide = max(1, min(math.floor(max(size) * scale), side, pixels_max // narrow))
    return (wide, narrow) if width >= height else (narrow, wide)


def _read_size(file: bytes) -> tuple[int, int]:
    if len(file) > FILE_BYTES_MAX:
        raise AssayError("image_refused", f"an image file has at most {FILE_BYTES_MAX} bytes")
    with _opened(file) as picture:
        width, height = picture.size
    if width * height > PIXELS_MAX:
        raise AssayError("image_refused", f"an image has at most {PIXELS_MAX} pixels")
    return width, height


def _pixels(file: bytes, size: tuple[int, int]) -> Image:
    try:
        with _opened(file) as picture:
            small = _upright(_flat(picture, size), picture)
        return Image(width=small.width, height=small.height, pixels=small.tobytes())
    except AssayError:
        raise
    except Exception as error:  # decoders raise whatever they meet in a broken file
        raise AssayError("image_refused", _UNREADABLE) from error


def _opened(file: bytes) -> Picture:
    try:
        import PIL.Image
    except ModuleNotFoundError as missing:
        raise AssayError("image_refused", missing_text("images", "PIL")) from missing
    try:
        return PIL.Image.open(BytesIO(file), formats=_FORMATS)
    except Exception as error:  # also one that its library thinks is a bomb
        raise AssayError("image_refused", _UNREADABLE) from error


def _flat(picture: Picture, size: tuple[int, int]) -> Picture:
    """RGB of that size, on white."""
    import PIL.Image

    width, height = size
    picture.draft("RGB", (2 * width, 2 * height))  # a JPEG need not be decoded larger
    if picture.mode.startswith("I"):  # 16 bits of gray
        whole = picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    else:
        whole = picture
    clear = whole.mode in ("RGBA", "LA", "PA") or "transparency" in whole.info
    whole = whole.convert("RGBA" if clear else "RGB")
    small = whole.resize(size, PIL.Image.Resampling.LANCZOS, reducing_gap=3.0)
    if not clear:
        return small
    white = PIL.Image.new("RGBA", size, (255, 255, 255, 255))
    white.alpha_composite(small)
    return white.convert("RGB")


def _upright(small: Picture, picture: Picture) -> Picture:
    """Turned as the file's EXIF says."""
    import PIL.Image

    turn = PIL.Image.Transpose
    turned = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }.get(picture.getexif().get(_ORIENTATION, 1))
    return small if turned is None else small.transpose(turned)


_ORIENTATION: Final = 0x0112  # of EXIF
