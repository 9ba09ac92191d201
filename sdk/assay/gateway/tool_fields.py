"""Tools and tool_choice as each API writes them: a list of `Tool`, and whether one must be used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from assay.gateway.fields import Fields
from assay.gateway.refusal import invalid, missing, unsupported
from assay.gateway.tool_calls import NAME, TOOLS_MAX, Tool

ANY_ARGUMENTS: Final = {"type": "object"}
DESCRIPTION_CHARACTERS_MAX: Final = 65_536
Chosen = tuple[tuple[Tool, ...], bool]  # the tools the model is told of; whether it must call one


def openai_tools(fields: Fields, *, flat: bool) -> tuple[Tool, ...]:
    """`tools`; `flat`: as /v1/responses writes a function, without a nested object."""
    found = []
    for index, value in enumerate(fields.items("tools", TOOLS_MAX)):
        tool = Fields.of(value, f"{fields.at('tools')}[{index}]")
        if tool.required_text("type") != "function":
            raise unsupported(tool.at("type"), "only functions can be offered to the model")
        inner = tool if flat else tool.required_object("function")
        found.append(_tool(inner, "parameters"))
    return _distinct(found, fields.at("tools"))


def anthropic_tools(fields: Fields) -> tuple[Tool, ...]:
    """`tools` as /v1/messages writes them."""
    found = []
    for index, value in enumerate(fields.items("tools", TOOLS_MAX)):
        tool = Fields.of(value, f"{fields.at('tools')}[{index}]")
        if tool.text("type", "custom") != "custom":
            raise unsupported(tool.at("type"), "only tools of your own can be offered")
        found.append(_tool(tool, "input_schema"))
    return _distinct(found, fields.at("tools"))


def openai_choice(fields: Fields, tools: tuple[Tool, ...], *, flat: bool) -> Chosen:
    """What `tool_choice` makes of `tools`."""
    choice = fields.raw("tool_choice")
    if choice is None or choice == "auto":
        return tools, False
    if choice == "none":
        return (), False
    if choice == "required":
        return _demand(fields, tools)
    if isinstance(choice, str):
        raise invalid(fields.at("tool_choice"), "tool_choice must be none, auto or required")
    named = Fields.of(choice, fields.at("tool_choice"))
    if named.required_text("type") != "function":
        raise unsupported(named.at("type"), "only a function can be demanded")
    inner = named if flat else named.required_object("function")
    return _demand(fields, tools, inner.required_text("name"))


def anthropic_choice(fields: Fields, tools: tuple[Tool, ...]) -> Chosen:
    """What `tool_choice` makes of `tools`, as /v1/messages writes it."""
    choice = fields.object("tool_choice")
    if choice is None:
        return tools, False
    match choice.choice("type", ("auto", "any", "tool", "none")):
        case "none":
            return (), False
        case "any":
            return _demand(fields, tools)
        case "tool":
            return _demand(fields, tools, choice.required_text("name"))
        case "auto":
            return tools, False
    raise missing(choice.at("type"))


def call_arguments(text: str, path: str) -> dict[str, Any]:
    """Arguments of an earlier call, which templates want as an object."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise invalid(path, f"{path} must be JSON") from None
    if not isinstance(value, dict):
        raise invalid(path, f"{path} must be a JSON object")
    return value


def _demand(fields: Fields, tools: tuple[Tool, ...], name: str | None = None) -> Chosen:
    wanted = tuple(tool for tool in tools if name in (None, tool.name))
    if not wanted:
        said = "tool_choice demands a function that tools does not have"
        raise invalid(fields.at("tool_choice"), said)
    return wanted, True


def _tool(fields: Fields, schema_name: str) -> Tool:
    name = fields.required_text("name")
    if not NAME.fullmatch(name):
        raise invalid(fields.at("name"), "a name has 1 to 64 letters, digits, '_' or '-'")
    about = fields.text("description", "", DESCRIPTION_CHARACTERS_MAX) or ""
    schema = fields.object(schema_name)
    fields.flag("strict")
    return Tool(name, about, dict(ANY_ARGUMENTS if schema is None else schema.body))


def _distinct(tools: Sequence[Tool], path: str) -> tuple[Tool, ...]:
    if len({tool.name for tool in tools}) < len(tools):
        raise invalid(path, "two functions have one name")
    return tuple(tools)
