"""Functions a model may call: asked for in its prompt, and read out of its answer.

Two ways, by what the caller demands:

- a call is demanded (`required`, or a named function): a grammar allows nothing else than
  {"name": ..., "arguments": ...} with arguments that the function's schema allows, and the answer
  is read as it comes.
- the model may choose (`auto`): its answer is free. A call is what stands between <tool_call> and
  </tool_call>, as most open models write it and as the prompt asks where the model's template knows
  no tools; or a whole answer that is one JSON object naming one of the functions. Text before a
  call is content. What looks like a call but is none is given as text: nothing is lost.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

OPEN, CLOSE = "<tool_call>", "</tool_call>"
TOOLS_MAX: Final = 128
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
CALLS_MAX: Final = 128  # of one answer
_HEAD: Final = re.compile(r'\s*\{\s*"name"\s*:\s*"([A-Za-z0-9_-]{1,64})"\s*,\s*"arguments"\s*:\s*')
# What may allow arguments that `properties` does not name.
_OPEN: Final = frozenset(
    {
        "additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames",
        "allOf", "anyOf", "oneOf", "not", "if", "$ref", "dependentSchemas",
    }
)  # fmt: skip
_ASKS: Final = (
    "You can call functions. To call one, answer with its name and arguments, as JSON in tags:\n"
    '<tool_call>\n{"name": "NAME", "arguments": {}}\n</tool_call>\n'
    "The functions, each with the JSON schema of its arguments:\n"
)


@dataclass(frozen=True, slots=True)
class Tool:
    """One function: `schema` is the JSON schema of its arguments."""

    name: str
    description: str
    schema: dict[str, Any]

    def as_told(self) -> dict[str, Any]:
        """As chat templates want it."""
        about = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": about}


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer's own text."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of what the model reasoned before its answer; no reader of calls is shown it."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """The model calls a function; `index` counts the answer's calls."""

    index: int
    call: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A piece of the arguments' JSON."""

    index: int
    text: str


Piece = Thought | Text | CallBegun | CallArguments


@dataclass(slots=True)
class Call:
    """One whole call; `arguments` is JSON."""

    call: str
    name: str
    arguments: str = ""


def demanded(tools: Sequence[Tool]) -> str:
    """The JSON schema of an answer that is one call of one of `tools`.

    Arguments that a schema does not name are left out, even where it would allow any: whoever
    writes the function knows only those with names.
    """
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": _closed(tool.schema)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return json.dumps(calls[0] if len(calls) == 1 else {"anyOf": calls}, ensure_ascii=False)


def told(tools: Sequence[Tool]) -> str:
    """What a system message says of `tools` where the template does not."""
    return _ASKS + "\n".join(json.dumps(tool.as_told()["function"]) for tool in tools)


def spoken(message: dict[str, Any]) -> dict[str, Any]:
    """A message of a chat as plain words, for a template that knows neither calls nor results."""
    if message["role"] == "tool":
        return {"role": "user", "content": _responded(message["content"])}
    if calls := message.get("tool_calls"):
        written = [f"{OPEN}\n{json.dumps(call['function'])}\n{CLOSE}" for call in calls]
        return {"role": message["role"], "content": "\n".join([message["content"], *written])}
    return message


def _responded(content: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """What a function gave, in its tags; pictures stay between the texts."""
    begin, end = "<tool_response>\n", "\n</tool_response>"
    if isinstance(content, str):
        return f"{begin}{content}{end}"
    return [{"type": "text", "text": begin}, *content, {"type": "text", "text": end}]


class PlainReader:
    """No functions: text is text."""

    calls: Sequence[Call] = ()

    def push(self, text: str) -> Iterator[Piece]:
        if text:
            yield Text(text)

    def flush(self) -> Iterator[Piece]:
        return iter(())


@dataclass(slots=True)
class DemandedReader:
    """Reads an answer that the grammar of `demanded` allows, as it comes."""

    calls: list[Call] = field(default_factory=list)
    _held: str = ""

    def push(self, text: str) -> Iterator[Piece]:
        self._held += text
        if not self.calls:
            head = _HEAD.match(self._held)
            if head is None:
                return
            self._held = self._held[head.end() :]
            self.calls.append(Call(_call_id(), head[1]))
            yield CallBegun(0, self.calls[0].call, head[1])
        if not self.calls[0].arguments:  # blanks after the colon may come later than the colon
            self._held = self._held.lstrip()
        # The last brace closes the call itself; it is not known yet which one is the last.
        end = len(self._held.rstrip("} \t\r\n"))
        if end:
            yield self._more(self._held[:end])
            self._held = self._held[end:]

    def flush(self) -> Iterator[Piece]:
        rest = self._held.rstrip()
        self._held = ""
        if not self.calls:  # cut off within the name
            if rest:
                yield Text(rest)
        elif tail := rest.removesuffix("}").rstrip():
            yield self._more(tail)

    def _more(self, text: str) -> CallArguments:
        self.calls[0].arguments += text
        return CallArguments(0, text)


@dataclass(slots=True)
class ChosenReader:
    """Reads an answer in which the model may call one of `names`, or just speak."""

    names: frozenset[str]
    calls: list[Call] = field(default_factory=list)
    _held: str = ""
    _spoken: bool = False

    def push(self, text: str) -> Iterator[Piece]:
        self._held += text
        while True:
            opened = self._held.find(OPEN)
            if opened < 0:
                yield from self._say(len(self._held) - _begun(self._held))
                return
            yield from self._say(opened)
            closed = self._held.find(CLOSE)
            if closed < 0:
                return
            yield from self._call(self._held[len(OPEN) : closed], self._held[: closed + len(CLOSE)])
            self._held = self._held[closed + len(CLOSE) :]

    def flush(self) -> Iterator[Piece]:
        held, self._held = self._held, ""
        if held.startswith(OPEN):
            yield from self._call(held[len(OPEN) :], held)
        elif not self._spoken and held.lstrip().startswith("{"):
            yield from self._call(held, held)
        elif held and not (self.calls and not held.strip()):
            yield Text(held)

    def _say(self, end: int) -> Iterator[Piece]:
        """Give out the held text up to `end`, unless the answer may yet be one JSON object."""
        said = self._held[:end]
        if not self._spoken and said.lstrip()[:1] in ("", "{") and OPEN not in self._held:
            return
        self._held = self._held[end:]
        if said and not (said.isspace() and (self.calls or self._held.startswith(OPEN))):
            self._spoken = True
            yield Text(said)

    def _call(self, inside: str, whole: str) -> Iterator[Piece]:
        found = _read_call(inside, self.names)
        if found is None or len(self.calls) == CALLS_MAX:
            self._spoken = True
            yield Text(whole)
            return
        self.calls.append(found)
        index = len(self.calls) - 1
        yield CallBegun(index, found.call, found.name)
        yield CallArguments(index, found.arguments)


Reader = PlainReader | DemandedReader | ChosenReader


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    named, needed = schema.get("properties"), schema.get("required", [])
    if _OPEN & schema.keys() or not isinstance(named, dict) or not isinstance(needed, list):
        return schema
    if not all(isinstance(name, str) and name in named for name in needed):
        return schema
    return {**schema, "additionalProperties": False}


def _read_call(text: str, names: frozenset[str]) -> Call | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if value["name"] not in names or not isinstance(arguments, dict):
        return None
    return Call(_call_id(), value["name"], json.dumps(arguments, ensure_ascii=False))


def _call_id() -> str:
    return "call_" + secrets.token_hex(12)


def _begun(text: str) -> int:
    """Length of the longest end of `text` that begins OPEN."""
    lengths = range(min(len(OPEN) - 1, len(text)), 0, -1)
    return next((n for n in lengths if OPEN.startswith(text[-n:])), 0)
