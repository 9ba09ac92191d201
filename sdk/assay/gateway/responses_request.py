"""The body of /v1/responses: OpenAI's items, read and checked, as what is to be drawn."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from assay.chat_template import MESSAGES_MAX
from assay.gateway.chat_request import (
    MODEL_CHARACTERS_MAX,
    answer_tokens,
    shape_options,
)
from assay.gateway.content_parts import PARTS_MAX, Content, read_content
from assay.gateway.fields import Fields
from assay.gateway.generation import Asked
from assay.gateway.idle_fields import check_idle_fields
from assay.gateway.refusal import invalid, missing, unsupported
from assay.gateway.sampling_fields import (
    NETWORK,
    SAMPLING,
    ignored_fields,
    network_options,
    sampling_options,
)
from assay.gateway.settings import Settings
from assay.gateway.thinking import TEMPLATE_FIELD, Thinking, response_thinking
from assay.gateway.tool_calls import NAME, demanded
from assay.gateway.tool_fields import call_arguments, openai_choice, openai_tools
from assay_protocol.limits import LOGPROBS_MAX

_IGNORED: Final = ("seed", "service_tier", "max_tool_calls")
_KNOWN: Final = (
    SAMPLING
    | NETWORK
    | {
        "model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text",
        "max_output_tokens", "top_logprobs", "stream", "stream_options", "store", "metadata",
        "previous_response_id", "background", "truncation", "include", "user", "grammar",
        "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "reasoning",
        TEMPLATE_FIELD, *_IGNORED,
    }
)  # fmt: skip
_REFUSED: Final = {
    "conversation": "name the response before by previous_response_id",
    "prompt": "no templates of prompts are kept here",
    "context_management": "the context is yours: send what the model shall see",
    "moderation": "the network has its own policy",
}
_ROLES: Final = ("system", "developer", "user", "assistant")
ID_CHARACTERS_MAX: Final = 1_024
CALL_CHARACTERS_MAX: Final = 64
_STATUSES: Final = ("in_progress", "completed", "incomplete")


@dataclass(frozen=True, slots=True)
class ResponseRequest:
    """`asked` lacks the chat before, if `previous` names one. `items` are the input, with ids."""

    asked: Asked
    chat: list[dict[str, Any]]  # of the input alone
    items: list[dict[str, Any]]
    echo: dict[str, Any]  # what the answer's body says of the request
    stream: bool
    background: bool
    store: bool
    previous: str | None
    logprobs: bool
    summary: bool  # of the reasoning, too


def read_response_request(body: dict[str, Any], settings: Settings) -> ResponseRequest:
    """The request in `body`; Refusal names what is wrong with it."""
    fields = Fields(body)
    fields.only(_KNOWN, _REFUSED)
    check_idle_fields(fields)
    tools, must = openai_choice(fields, openai_tools(fields, flat=True), flat=True)
    include = fields.texts("include", 16)
    logprobs = "message.output_text.logprobs" in include
    options = sampling_options(fields) | network_options(fields, settings)
    options |= _shape(fields, bool(tools), must)
    top = fields.integer("top_logprobs", 0, LOGPROBS_MAX)
    if logprobs:
        options["logprobs"] = top or 0
    if must:
        options["grammar"] = {"json_schema": demanded(tools)}
    items = _items(fields)
    chat = _chat(items)
    instructions = fields.text("instructions")
    system = [] if instructions is None else [{"role": "system", "content": instructions}]
    if fields.choice("truncation", ("auto", "disabled"), "disabled") == "auto":
        raise unsupported("truncation", "nothing is left out of a prompt: it fits or is refused")
    keeps = settings.responses > 0
    store = fields.flag("store", keeps)
    background, stream = fields.flag("background"), fields.flag("stream")
    if background and (stream or not (keeps and store)):
        said = "a response in the background needs a gateway that keeps responses, and no stream"
        raise unsupported("background", said)
    thinking = response_thinking(fields)
    asked = Asked(
        model=fields.required_text("model", MODEL_CHARACTERS_MAX),
        max_tokens=answer_tokens(fields, ("max_output_tokens",), settings),
        options=options,
        messages=[*system, *chat],
        tools=tools,
        tools_demanded=must,
        ignored=ignored_fields(fields, (*_IGNORED, *(() if keeps else ("store",)))),
        license=fields.text("license"),
        thinking=thinking,
    )
    return ResponseRequest(
        asked=asked,
        chat=chat,
        items=items,
        echo=_echo(fields, instructions, store and keeps, thinking),
        stream=stream,
        background=background,
        store=store and keeps,
        previous=fields.text("previous_response_id", None, 128),
        logprobs=logprobs,
        summary=_summary(fields) is not None,
    )


def _echo(
    fields: Fields, instructions: str | None, store: bool, thinking: Thinking
) -> dict[str, Any]:
    metadata = fields.object("metadata")
    text = fields.object("text")
    shape = None if text is None else text.raw("format")
    return {
        "instructions": instructions,
        "max_output_tokens": fields.raw("max_output_tokens"),
        "max_tool_calls": None,
        "parallel_tool_calls": fields.flag("parallel_tool_calls", True),
        "previous_response_id": fields.raw("previous_response_id"),
        "reasoning": {"effort": thinking.effort, "summary": _summary(fields)},
        "store": store,
        "temperature": 0.8 if (given := fields.raw("temperature")) is None else given,
        "top_p": 0.95 if (share := fields.raw("top_p")) is None else share,
        "presence_penalty": fields.raw("presence_penalty") or 0.0,
        "frequency_penalty": fields.raw("frequency_penalty") or 0.0,
        "text": {"format": shape or {"type": "text"}},
        "tool_choice": fields.raw("tool_choice") or "auto",
        "tools": [_told(tool) for tool in fields.items("tools", 1 << 16)],
        "top_logprobs": fields.raw("top_logprobs") or 0,
        "truncation": "disabled",
        "metadata": {} if metadata is None else dict(metadata.body),
        "background": fields.flag("background"),
        "service_tier": "default",
        "safety_identifier": fields.text("safety_identifier"),
        "prompt_cache_key": fields.text("prompt_cache_key"),
        # The one field that OpenAI's schema lets be left out but not be null.
        **({"user": user} if (user := fields.text("user")) is not None else {}),
    }


def _summary(fields: Fields) -> str | None:
    """The kind of summary that was asked for, under its newer or its older name."""
    reasoning = fields.object("reasoning")
    if reasoning is None:
        return None
    return reasoning.text("summary") or reasoning.text("generate_summary")


def _told(tool: dict[str, Any]) -> dict[str, Any]:
    given = {name: tool.get(name) for name in ("type", "name", "description", "parameters")}
    return {**given, "strict": tool.get("strict")}


def _shape(fields: Fields, tools: bool, must: bool) -> dict[str, Any]:
    """`text.format`, which is response_format without the nested object."""
    text = fields.object("text")
    shape = None if text is None else text.object("format")
    asked = {"grammar": fields.raw("grammar")}
    if shape is not None:
        nested = {name: value for name, value in shape.body.items() if name != "type"}
        asked["text.format"] = {"type": shape.raw("type"), "json_schema": nested}
        if shape.raw("type") != "json_schema":
            asked["text.format"] = {"type": shape.raw("type")}
    return shape_options(Fields(asked), "text.format", tools, must)


def _items(fields: Fields) -> list[dict[str, Any]]:
    given = fields.raw("input")
    if given is None:
        raise missing("input")
    if isinstance(given, str):
        content = [{"type": "input_text", "text": given}]
        return [{"id": _item_id(), "type": "message", "role": "user", "content": content}]
    items = fields.items("input", MESSAGES_MAX)
    if not items:
        raise invalid("input", "input must not be empty")
    found = [Fields.of(one, f"input[{index}]") for index, one in enumerate(items)]
    return [{"id": _item_id(), "type": "message", **item.body} for item in found]


def _chat(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    chat: list[dict[str, Any]] = []
    thoughts = ""  # of the message, or call, that follows
    for index, item in enumerate(items):
        fields = Fields(item, f"input[{index}]")
        fields.text("id", None, ID_CHARACTERS_MAX)
        fields.choice("status", _STATUSES)
        match fields.required_text("type"):
            case "message":
                chat.append(_message(fields))
            case "function_call":
                _add_call(chat, fields, new=bool(thoughts))
            case "function_call_output":
                content = _output(fields)
                call = fields.required_text("call_id", CALL_CHARACTERS_MAX, 1)
                chat.append({"role": "tool", "content": content, "tool_call_id": call})
            case "reasoning":
                thoughts += _thoughts(fields)
                continue
            case kind:
                raise unsupported(fields.at("type"), f"the network's models take no {kind[:64]!r}")
        if thoughts and chat[-1]["role"] == "assistant":  # else it led to nothing that is told
            chat[-1]["reasoning_content"] = thoughts
        thoughts = ""
    if not chat:
        raise invalid("input", "input holds nothing for the model")
    return chat


def _thoughts(fields: Fields) -> str:
    """What a reasoning item says in the open; its summary, or what is encrypted, is not read."""
    parts = enumerate(fields.items("content", PARTS_MAX))
    found = [Fields.of(one, f"{fields.at('content')}[{index}]") for index, one in parts]
    return "".join(part.text("text") or "" for part in found)


def _output(fields: Fields) -> Content:
    if not fields.has("output"):
        raise missing(fields.at("output"))
    return read_content(fields, pictures=True, name="output")


def _message(fields: Fields) -> dict[str, Any]:
    role = fields.required_text("role")
    if role not in _ROLES:
        raise invalid(fields.at("role"), f"a role is one of {', '.join(_ROLES)}")
    if not fields.has("content"):
        raise missing(fields.at("content"))
    said = read_content(fields, pictures=role == "user")
    return {"role": "system" if role == "developer" else role, "content": said}


def _add_call(chat: list[dict[str, Any]], fields: Fields, *, new: bool) -> None:
    """A call belongs to the assistant's message before it, unless reasoning came between."""
    name = fields.required_text("name")
    if not NAME.fullmatch(name):
        raise invalid(fields.at("name"), "not a function's name")
    arguments = call_arguments(fields.required_text("arguments"), fields.at("arguments"))
    call = {
        "id": fields.required_text("call_id", CALL_CHARACTERS_MAX, 1),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
    if new or not chat or chat[-1]["role"] != "assistant":
        chat.append({"role": "assistant", "content": ""})
    chat[-1].setdefault("tool_calls", []).append(call)


def _item_id() -> str:
    return f"item_{secrets.token_hex(12)}"
