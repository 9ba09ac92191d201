"""What a message says: a text, or a list of parts, of which some may be pictures.

A content without pictures is one text; with some it is a list of OpenAI's parts as the SDK takes
them (pictures.py), whichever API it came by. Pictures come in the body, as data URLs: the gateway
fetches nothing, or its callers could have it ask others in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from assay.gateway.fields import Fields
from assay.gateway.refusal import invalid, unsupported

PARTS_MAX: Final = 1_024
NOT_FETCHED: Final = "pictures come as data URLs (data:image/png;base64,...): no URL is fetched"
_DETAILS: Final = ("auto", "low", "high", "original")
_MEDIA_CHARACTERS_MAX: Final = 64

Content = str | list[dict[str, Any]]


def read_content(fields: Fields, *, pictures: bool, name: str = "content") -> Content:
    """A string, or a list of OpenAI's parts: texts, and pictures if they may be there."""
    content = fields.raw(name)
    if content is None or isinstance(content, str):
        return content or ""
    parts = enumerate(fields.items(name, PARTS_MAX))
    return joined([_part(Fields.of(one, f"{fields.at(name)}[{i}]"), pictures) for i, one in parts])


def joined(parts: Sequence[dict[str, Any]]) -> Content:
    """The parts as one text, if they are texts alone."""
    if any(part["type"] != "text" for part in parts):
        return list(parts)
    return "".join(part["text"] for part in parts)


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def anthropic_picture(block: Fields) -> dict[str, Any]:
    """An image block of Anthropic's."""
    source = block.required_object("source")
    if source.required_text("type") != "base64":
        raise invalid(source.at("type"), NOT_FETCHED, "invalid_image_url")
    kind = source.required_text("media_type", _MEDIA_CHARACTERS_MAX)
    return _picture(f"data:{kind};base64,{source.required_text('data')}", source.at("data"))


def told_details(messages: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The field that asks for a picture's resolution, if any picture has it: a model reads all
    pictures alike."""
    parts = [
        part
        for message in messages
        if isinstance(message["content"], list)
        for part in message["content"]
    ]
    asked = (part["image_url"].get("detail", "auto") for part in parts if "image_url" in part)
    return ("detail",) if any(one != "auto" for one in asked) else ()


def _part(part: Fields, pictures: bool) -> dict[str, Any]:
    match part.required_text("type"):
        case "text" | "input_text" | "output_text":
            part.items("annotations", PARTS_MAX)  # of an earlier answer; they change nothing
            return text_part(part.required_text("text"))
        case "refusal":
            return text_part(part.required_text("refusal"))
        case "image_url" if pictures:
            named = part.required_object("image_url")
            return _picture(named.required_text("url"), named.at("url"), named)
        case "input_image" if pictures:
            if part.has("file_id"):
                raise unsupported(part.at("file_id"), "no files are kept here: send a data URL")
            return _picture(part.required_text("image_url"), part.at("image_url"), part)
        case "image_url" | "input_image":
            said = "a user's messages and results of functions may show pictures, others not"
            raise unsupported(part.at("type"), said)
    raise unsupported(part.at("type"), "the network's models read text, and some read pictures")


def _picture(url: str, path: str, named: Fields | None = None) -> dict[str, Any]:
    if not url.startswith("data:"):
        raise invalid(path, NOT_FETCHED, "invalid_image_url")
    detail = None if named is None else named.choice("detail", _DETAILS)
    return {"type": "image_url", "image_url": {"url": url, "detail": detail or "auto"}}
