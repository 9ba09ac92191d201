"""Pictures in a chat: OpenAI's parts with data URLs, made, and taken out of the messages.

    {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}

`image_part` makes one of a file. Nothing is fetched: a URL of another kind is refused, or whoever
asks a gateway could have it ask others.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from assay.picture_files import FILE_BYTES_MAX
from assay_protocol.errors import AssayError
from assay_protocol.limits import IMAGES_MAX

_DATA_URL: Final = re.compile(r"data:[A-Za-z0-9.+/-]{0,127}(;[A-Za-z0-9=._-]{1,127}){0,4};base64,")
_BASE64_MAX: Final = 4 * -(-FILE_BYTES_MAX // 3)


def image_part(source: Path | str | bytes) -> dict[str, Any]:
    """The part of a message's content that shows the file at a path, or of these bytes.

    Raises OSError, AssayError("image_refused") for a file that is too large.
    """
    if isinstance(source, bytes):
        data = source
    else:
        with Path(source).open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise AssayError("image_refused", f"an image file has at most {FILE_BYTES_MAX} bytes")
    url = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def has_pictures(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any part of any message is a picture."""
    return any(_is_picture(part) for message in messages for part in _parts(message))


def without_pictures(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
    """The body of a request without the pictures of its `messages`, and how many there are."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return body, 0
    given = [one if isinstance(one, Mapping) else {} for one in messages]
    count = sum(_is_picture(part) for message in given for part in _parts(message))
    if not count:
        return body, 0
    texts = [
        {**one, "content": [part for part in _parts(one) if not _is_picture(part)]}
        if _parts(one)
        else one
        for one in given
    ]
    return {**body, "messages": texts}, count


def take_pictures(
    messages: Sequence[Mapping[str, Any]],
) -> tuple[list[Mapping[str, Any]], list[bytes]]:
    """The messages with a number in the place of each picture, and the files so numbered.

    Raises AssayError("image_refused") for a picture that is no data URL, or too many of them.
    """
    files: list[bytes] = []

    def taken(part: Any) -> Any:
        if not _is_picture(part):
            return part
        if len(files) == IMAGES_MAX:
            raise AssayError("image_refused", f"at most {IMAGES_MAX} images at a time")
        files.append(_file_of(part))
        return {"type": "image", "image": len(files) - 1}

    found = [
        {**message, "content": [taken(part) for part in message["content"]]}
        if any(_is_picture(part) for part in _parts(message))
        else message
        for message in messages
    ]
    return found, files


def _parts(message: Mapping[str, Any]) -> Sequence[Any]:
    content = message.get("content")
    return content if isinstance(content, list | tuple) else ()


def _is_picture(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "image_url"


def _file_of(part: Mapping[str, Any]) -> bytes:
    named = part.get("image_url")
    url = named.get("url") if isinstance(named, Mapping) else named
    head = _DATA_URL.match(url) if isinstance(url, str) else None
    if head is None:
        said = "a picture comes as a data URL in base64 (data:image/png;base64,...)"
        raise AssayError("image_refused", f"{said}: no URL is fetched")
    if len(head.string) - head.end() > _BASE64_MAX:
        raise AssayError("image_refused", f"an image file has at most {FILE_BYTES_MAX} bytes")
    try:
        return base64.b64decode(head.string[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise AssayError("image_refused", "a picture's data URL is not base64") from error
