"""Small pictures as files, and the card of a model that reads them."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import PIL.Image

from assay_protocol.cards import Vision

SEES = Vision(projector=b"p" * 32, size_bytes=1, tokens=9, side=64, before=(5,), after=(6, 7))


def picture_file(
    color: Any = (200, 30, 40),
    size: tuple[int, int] = (4, 3),
    kind: str = "PNG",
    mode: str = "RGB",
    **options: Any,
) -> bytes:
    """A file of one color; `options` are Pillow's."""
    file = BytesIO()
    PIL.Image.new(mode, size, color).save(file, kind, **options)
    return file.getvalue()


def data_url(file: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(file).decode()}"


def shown(file: bytes, **detail: str) -> dict[str, Any]:
    """OpenAI's part of a chat."""
    return {"type": "image_url", "image_url": {"url": data_url(file), **detail}}
