"""The body of /v1/messages: Anthropic's fields, read and checked, as what is to be drawn."""

from __future__ import annotations

from typing import Any, Final

from assay.chat_template import MESSAGES_MAX
from assay.gateway.chat_request import MODEL_CHARACTERS_MAX
from assay.gateway.content_parts import (
    PARTS_MAX,
    Content,
    anthropic_picture,
    joined,
    text_part,
)
from assay.gateway.fields import Fields
from assay.gateway.generation import Asked
from assay.gateway.refusal import invalid, missing, unsupported
from assay.gateway.sampling_fields import (
    ANSWER_TOKENS_MAX,
    NETWORK,
    network_options,
    sampling_options,
    stop_strings,
)
from assay.gateway.settings import Settings
from assay.gateway.thinking import message_thinking
from assay.gateway.tool_calls import NAME, demanded
from assay.gateway.tool_fields import anthropic_choice, anthropic_tools

_PROMPT: Final = frozenset(
    {"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"}
)
_KNOWN: Final = (
    _PROMPT
    | NETWORK
    | {
        "max_tokens", "stop_sequences", "stream", "temperature", "top_p", "top_k",
        "metadata", "service_tier", "cache_control", "context_management",
    }
)  # fmt: skip
_REFUSED: Final = {
    "mcp_servers": "the gateway calls nobody on your behalf",
    "container": "the network runs no code",
}


def read_message_request(body: dict[str, Any], settings: Settings) -> tuple[Asked, bool]:
    """What is to be drawn, and whether as a stream; Refusal names what is wrong."""
    fields = Fields(body)
    fields.only(_KNOWN, _REFUSED)
    most = fields.integer("max_tokens", 1, ANSWER_TOKENS_MAX)
    if most is None:
        raise missing("max_tokens")
    options = sampling_options(fields) | network_options(fields, settings)
    options["stop"] = stop_strings(fields, "stop_sequences")
    tools, must = anthropic_choice(fields, anthropic_tools(fields))
    if must:
        options["grammar"] = {"json_schema": demanded(tools)}
    asked = Asked(
        model=fields.required_text("model", MODEL_CHARACTERS_MAX),
        max_tokens=most,
        options=options,
        messages=_chat(fields),
        tools=tools,
        tools_demanded=must,
        license=fields.text("license"),
        thinking=message_thinking(fields, most),
    )
    return asked, fields.flag("stream")


def read_count_request(body: dict[str, Any]) -> Asked:
    """The body of /v1/messages/count_tokens: a prompt, and nothing about an answer."""
    fields = Fields(body)
    fields.only(_PROMPT)
    tools, must = anthropic_choice(fields, anthropic_tools(fields))
    return Asked(
        model=fields.required_text("model", MODEL_CHARACTERS_MAX),
        max_tokens=1,
        messages=_chat(fields),
        tools=tools,
        tools_demanded=must,
        options={"grammar": {"json_schema": demanded(tools)}} if must else {},
        thinking=message_thinking(fields, None),
    )


def _chat(fields: Fields) -> list[dict[str, Any]]:
    """The system's text and the turns, as templates want them."""
    chat: list[dict[str, Any]] = []
    if fields.has("system"):
        chat.append({"role": "system", "content": _said(fields, "system")})
    turns = fields.items("messages", MESSAGES_MAX - 1)
    if not turns:
        raise invalid("messages", "messages must not be empty")
    for index, turn in enumerate(turns):
        chat += _turn(Fields.of(turn, f"messages[{index}]"))
    return chat


def _turn(turn: Fields) -> list[dict[str, Any]]:
    """One turn: the results of calls come first, each a message of its own."""
    role = turn.required_text("role")
    if role not in ("user", "assistant", "system"):
        raise invalid(turn.at("role"), "a role is user or assistant")
    if not isinstance(turn.raw("content"), list):
        return [{"role": role, "content": turn.required_text("content")}]
    results: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    thoughts: list[str] = []
    for index, value in enumerate(turn.items("content", PARTS_MAX)):
        block = Fields.of(value, f"{turn.at('content')}[{index}]")
        kind = block.required_text("type")
        if kind == "text":
            said.append(text_part(block.required_text("text")))
        elif kind == "image" and role == "user":
            said.append(anthropic_picture(block))
        elif kind == "tool_use" and role == "assistant":
            calls.append(_call(block))
        elif kind == "tool_result" and role == "user":
            call = block.required_text("tool_use_id", 128)
            content = _said(block, "content", pictures=True)
            results.append({"role": "tool", "content": content, "tool_call_id": call})
        elif kind == "thinking" and role == "assistant":
            thoughts.append(block.required_text("thinking"))
            block.text("signature")
        elif kind not in ("thinking", "redacted_thinking"):  # of another model, and not to be read
            raise unsupported(block.at("type"), f"the network's models do not read {kind[:64]!r}")
    message: dict[str, Any] = {"role": role, "content": joined(said)}
    if thoughts:  # whether they are kept is the template's say
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return [*results, message] if said or calls or not results else results


def _said(fields: Fields, name: str, *, pictures: bool = False) -> Content:
    """A string, or a list of blocks: texts, and pictures if they may be there."""
    value = fields.raw(name)
    if value is None or isinstance(value, str):
        return value or ""
    found = []
    for index, one in enumerate(fields.items(name, PARTS_MAX)):
        block = Fields.of(one, f"{fields.at(name)}[{index}]")
        kind = block.required_text("type")
        if kind == "image" and pictures:
            found.append(anthropic_picture(block))
        elif kind == "text":
            found.append(text_part(block.required_text("text")))
        else:
            said = f"the network's models do not read {kind[:64]!r} here"
            raise unsupported(block.at("type"), said)
    return joined(found)


def _call(block: Fields) -> dict[str, Any]:
    name, given = block.required_text("name"), block.object("input")
    if not NAME.fullmatch(name):
        raise invalid(block.at("name"), "not a tool's name")
    arguments = {} if given is None else given.body
    about = {"name": name, "arguments": arguments}
    return {"id": block.required_text("id", 128), "type": "function", "function": about}
