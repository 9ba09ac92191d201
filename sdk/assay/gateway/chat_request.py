"""The body of /v1/chat/completions: OpenAI's fields, read and checked, as what is to be drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from assay.chat_template import MESSAGES_MAX
from assay.gateway.content_parts import read_content
from assay.gateway.fields import Fields
from assay.gateway.generation import Asked
from assay.gateway.idle_fields import check_idle_fields
from assay.gateway.refusal import invalid, missing, unsupported
from assay.gateway.sampling_fields import (
    ANSWER_TOKENS_MAX,
    NETWORK,
    SAMPLING,
    ignored_fields,
    network_options,
    sampling_options,
    stop_strings,
)
from assay.gateway.settings import Settings
from assay.gateway.thinking import TEMPLATE_FIELD, chat_thinking
from assay.gateway.tool_calls import CALLS_MAX, NAME, demanded
from assay.gateway.tool_fields import call_arguments, openai_choice, openai_tools
from assay_protocol.limits import LOGPROBS_MAX

MODEL_CHARACTERS_MAX: Final = 256
_IGNORED: Final = ("seed", "verbosity", "service_tier", "prediction", "store")
_KNOWN: Final = (
    SAMPLING
    | NETWORK
    | {
        "model", "messages", "stream", "stream_options", "n", "stop", "max_tokens",
        "max_completion_tokens", "logprobs", "top_logprobs", "tools", "tool_choice",
        "parallel_tool_calls", "response_format", "grammar", "user", "metadata",
        "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "modalities",
        "reasoning_effort", "reasoning", "thinking", "include_reasoning", TEMPLATE_FIELD, *_IGNORED,
    }
)  # fmt: skip
_REFUSED: Final = {
    "audio": "the network's models write text",
    "web_search_options": "the network's models do not search",
    "functions": "use tools",
    "function_call": "use tool_choice",
    "moderation": "the network has its own policy",
}
_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """`asked`, and how the answer is to be told."""

    asked: Asked
    stream: bool
    usage: bool  # in a stream, as its last chunk
    logprobs: bool


def read_chat(body: dict[str, Any], settings: Settings) -> ChatRequest:
    """The request in `body`; Refusal names what is wrong with it."""
    fields = Fields(body)
    fields.only(_KNOWN, _REFUSED)
    model = fields.required_text("model", MODEL_CHARACTERS_MAX)
    stream = fields.flag("stream")
    logprobs = fields.flag("logprobs")
    options = sampling_options(fields) | network_options(fields, settings)
    options["stop"] = stop_strings(fields, "stop")
    top = fields.integer("top_logprobs", 0, LOGPROBS_MAX)
    if top is not None and not logprobs:
        raise invalid("top_logprobs", "top_logprobs needs logprobs: true")
    if logprobs:
        options["logprobs"] = top or 0
    if any(one != "text" for one in fields.items("modalities", 8)):
        raise unsupported("modalities", "the network's models write text")
    tools, must = openai_choice(fields, openai_tools(fields, flat=False), flat=False)
    check_idle_fields(fields)
    options |= shape_options(fields, "response_format", bool(tools), must)
    if must:
        options["grammar"] = {"json_schema": demanded(tools)}
    asked = Asked(
        model=model,
        max_tokens=answer_tokens(fields, ("max_completion_tokens", "max_tokens"), settings),
        choices=fields.integer("n", 1, settings.choices) or 1,
        options=options,
        messages=read_messages(fields),
        tools=tools,
        tools_demanded=must,
        ignored=ignored_fields(fields, _IGNORED),
        license=fields.text("license"),
        thinking=chat_thinking(fields),
    )
    return ChatRequest(asked, stream, wants_usage(fields, stream), logprobs)


def answer_tokens(fields: Fields, names: tuple[str, ...], settings: Settings) -> int:
    """The most tokens that were asked for, by the first of `names` that is given."""
    given = [fields.integer(name, 1, ANSWER_TOKENS_MAX) for name in names]
    return next((one for one in given if one is not None), settings.max_tokens)


def wants_usage(fields: Fields, stream: bool) -> bool:
    """`stream_options.include_usage`; Refusal if there is no stream."""
    options = fields.object("stream_options")
    if options is None:
        return False
    if not stream:
        raise invalid("stream_options", "stream_options needs stream: true")
    options.only(frozenset({"include_usage", "include_obfuscation"}))
    options.flag("include_obfuscation")
    return options.flag("include_usage")


def shape_options(fields: Fields, name: str, tools: bool, must: bool) -> dict[str, Any]:
    """The grammar an answer must keep to, by `name` (OpenAI's) or `grammar` (ours)."""
    shape, grammar = fields.object(name), fields.object("grammar")
    options: dict[str, Any] = {}
    if shape is not None and shape.required_text("type") != "text":
        kind = shape.choice("type", ("text", "json_object", "json_schema"))
        inner = shape.object("json_schema")
        if kind == "json_schema":
            _check_schema(inner, shape.at("json_schema"))
        options["response_format"] = shape.body
    if grammar is not None:
        if len(grammar.body) != 1 or options:
            raise invalid("grammar", "either response_format or one pair of a kind and its text")
        (kind,) = grammar.body
        options["grammar"] = {kind: grammar.required_text(kind)}
    if options and (must or tools):
        said = "an answer's form and functions it may call exclude each other: tool_choice none"
        raise unsupported(name, said)
    return options


def _check_schema(named: Fields | None, path: str) -> None:
    """A schema has a name, as OpenAI demands; it has no effect here."""
    if named is None or named.object("schema") is None:
        raise missing(f"{path}.schema")
    if not NAME.fullmatch(named.required_text("name")):
        raise invalid(named.at("name"), "a name has 1 to 64 letters, digits, '_' or '-'")
    named.text("description")
    named.flag("strict")


def read_messages(fields: Fields) -> list[dict[str, Any]]:
    """`messages` as templates want them: contents as read_content gives them, arguments as
    objects."""
    given = fields.items("messages", MESSAGES_MAX)
    if not fields.has("messages"):
        raise missing("messages")
    if not given:
        raise invalid("messages", "messages must not be empty")
    return [_message(Fields.of(one, f"messages[{i}]")) for i, one in enumerate(given)]


def _message(fields: Fields) -> dict[str, Any]:
    if fields.required_text("role") not in _ROLES:
        raise invalid(fields.at("role"), f"a role is one of {', '.join(_ROLES)}")
    if fields.raw("content") == []:
        raise invalid(fields.at("content"), "content must not be empty")
    role = {"developer": "system", "function": "tool"}.get(fields.body["role"], fields.body["role"])
    shows = role in ("user", "tool")
    message: dict[str, Any] = {"role": role, "content": read_content(fields, pictures=shows)}
    if fields.has("tool_calls"):
        if role != "assistant":
            raise invalid(fields.at("tool_calls"), "only an assistant calls functions")
        calls = enumerate(fields.items("tool_calls", CALLS_MAX))
        message["tool_calls"] = [
            _call(Fields.of(one, f"{fields.at('tool_calls')}[{i}]")) for i, one in calls
        ]
    elif not fields.has("content") and role != "assistant":
        raise missing(fields.at("content"))
    reasoning = fields.text("reasoning_content") or fields.text("reasoning")
    if reasoning and role == "assistant":  # whether earlier reasoning is kept is the template's say
        message["reasoning_content"] = reasoning
    fields.text("refusal")
    for field, instead in (("function_call", "use tool_calls"), ("audio", "send its transcript")):
        if fields.has(field):
            raise unsupported(fields.at(field), f"{field} of a message is not read: {instead}")
    if name := fields.text("name", None, 128):
        message["name"] = name
    if fields.body["role"] == "tool":
        message["tool_call_id"] = fields.required_text("tool_call_id", 128)
    return message


def _call(call: Fields) -> dict[str, Any]:
    function = call.object("function")
    if call.text("type", "function") != "function" or function is None:
        raise unsupported(call.at("type"), "only calls of functions can be told")
    name = function.required_text("name")
    if not NAME.fullmatch(name):
        raise invalid(function.at("name"), "not a function's name")
    arguments = call_arguments(function.required_text("arguments"), function.at("arguments"))
    return {
        "id": call.text("id", "", 128),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
