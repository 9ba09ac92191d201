"""OpenAI's own OpenAPI document, cut to the operations that are served here, for schemathesis.

The document is the one llm-comply brings with it (specs/openai_chat.json in the suites'
environment), so its version is fixed by llm-comply's. The model is the one that is served; how long
an answer may be is bounded when a request is sent (schemathesis_hooks.py). Fields that
docs/gateway.md says are refused are left out, so that most requests are drawn and their answers
compared with OpenAI's schema; what an answer must hold stays OpenAI's.

A request may hold null wherever the document lets a field be absent, and any list, or nothing, for
what we do not look into (`annotations`). Components that requests share with answers are kept
twice, so that an answer is held to the document itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

OPERATIONS: Final = {
    "/chat/completions": ("post",),
    "/completions": ("post",),
    "/responses": ("post",),
    "/embeddings": ("post",),
    "/models": ("get",),
    "/models/{model}": ("get",),
}
# By operation: fields that are asked for in one way only.
_NARROW: Final[dict[str, dict[str, Any]]] = {
    "/chat/completions": {},
    "/completions": {"prompt": {"type": "string", "minLength": 1}},
    "/responses": {},
    # The document has no answer for base64, which openai-python asks for by default.
    "/embeddings": {"encoding_format": {"type": "string", "enum": ["float"]}},
}
# Refused here; and the document's oneOf takes a message that has an id for one of these as well, so
# that no such message would be right.
_REFERENCE: Final = "#/components/schemas/ItemReferenceParam"
_ASKED: Final = "Asked"  # before the name of a component, as a request may write it
# Demanded by the document, and changing nothing here.
_NEEDLESS: Final[dict[str, dict[str, Any]]] = {"annotations": {"type": "array"}}
# Not asked for: what docs/gateway.md says is refused, what excludes other fields of the same
# request, and names of an older bound for the same tokens.
_LEFT_OUT: Final = {
    "/chat/completions": {
        "audio", "function_call", "functions", "max_tokens", "modalities", "stream_options",
        "top_logprobs", "web_search_options", "tools", "tool_choice",
    },
    "/completions": {"best_of", "echo", "stream_options", "suffix"},
    "/responses": {
        "background", "conversation", "include", "previous_response_id", "prompt", "stream_options",
        "tools", "tool_choice", "truncation",
    },
    "/embeddings": {"dimensions"},
}  # fmt: skip


def write(source: Path, target: Path, model: str, embedding_model: str | None) -> tuple[str, ...]:
    """Cut the document `source` into `target`; its operations, as schemathesis names them."""
    made = cut(json.loads(source.read_text()), model, embedding_model)
    target.write_text(json.dumps(made))
    return tuple(f"{m.upper()} {path}" for path, item in made["paths"].items() for m in item)


def cut(whole: dict[str, Any], model: str, embedding_model: str | None) -> dict[str, Any]:
    """The document with our operations, for servers of `model`."""
    paths = {
        path: {method: _plain(whole["paths"][path][method]) for method in methods}
        for path, methods in OPERATIONS.items()
        if path != "/embeddings" or embedding_model is not None
    }
    for path in _NARROW.keys() & paths.keys():
        content = paths[path]["post"]["requestBody"]["content"]["application/json"]
        content.pop("examples", None)
        served = embedding_model if path == "/embeddings" else model
        content["schema"] = _narrowed(whole, content["schema"], path, str(served))
    for path in paths:
        _any_events(paths[path])
    for parameter in paths["/models/{model}"]["get"]["parameters"]:
        parameter["schema"] = {"type": "string", "enum": [model]}
    made = {"openapi": whole["openapi"], "info": whole["info"], "paths": paths}
    made["security"] = [{"ApiKeyAuth": []}]
    made["components"] = _reached(whole, paths)
    made["components"]["securitySchemes"] = {"ApiKeyAuth": {"type": "http", "scheme": "bearer"}}
    return made


def _plain(operation: dict[str, Any]) -> dict[str, Any]:
    """Without examples of code."""
    return {key: value for key, value in operation.items() if not key.startswith("x-")}


def _any_events(item: dict[str, Any]) -> None:
    """Streams as anything: the document gives the JSON within an event where schemathesis looks for
    the event itself, and forgets that completions are streamed. llm-comply reads the events."""
    for operation in item.values():
        for answer in operation["responses"].values():
            if "application/json" in answer.get("content", {}):
                answer["content"]["text/event-stream"] = {}


def _narrowed(whole: dict[str, Any], schema: Any, path: str, model: str) -> dict[str, Any]:
    """One object with all fields of `schema` but those left out, and no others."""
    fields, required = _flat(whole, schema)
    for name in _LEFT_OUT[path]:
        fields.pop(name, None)
    fields = {name: _or_null(_as_asked(inner)) for name, inner in fields.items()}
    fields |= {"model": {"type": "string", "enum": [model]}, **_NARROW[path]}
    needed = sorted(required & fields.keys() | {"model"} | ({"prompt"} & fields.keys()))
    closed = {"type": "object", "properties": fields, "additionalProperties": False}
    return {**closed, "required": needed}


def _flat(whole: dict[str, Any], schema: Any) -> tuple[dict[str, Any], set[str]]:
    """Properties and required names of a schema that is put together with allOf."""
    if "$ref" in schema:
        (kind, name) = next(_references(schema))
        return _flat(whole, whole["components"][kind][name])
    fields, required = dict(schema.get("properties", {})), set(schema.get("required", ()))
    for part in schema.get("allOf", ()):
        more, needed = _flat(whole, part)
        fields |= more
        required |= needed
    return fields, required


def _as_asked(schema: Any) -> Any:
    """`schema` in a request, whatever the document says: what may be absent may be null."""
    if isinstance(schema, list):
        return [_as_asked(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(target := schema.get("$ref"), str):
        kind, _, name = target.rpartition("/")
        return {"$ref": f"{kind}/{_ASKED}{name}"}
    made = {key: _as_asked(inner) for key, inner in schema.items() if key != "properties"}
    if needed := [name for name in schema.get("required", ()) if name not in _NEEDLESS]:
        made["required"] = needed
    elif "required" in made:
        del made["required"]
    if isinstance(fields := schema.get("properties"), dict):
        read = {name: _as_asked(inner) for name, inner in (fields | _known(fields)).items()}
        made["properties"] = {
            name: inner if name in needed else _or_null(inner) for name, inner in read.items()
        }
    return made


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: schema for name, schema in _NEEDLESS.items() if name in fields}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(schema.get("type"), str):
        return {"nullable": True, "allOf": [schema]}
    made = {**schema, "type": [schema["type"], "null"]}
    return made | {"enum": [*made["enum"], None]} if "enum" in made else made


def _reached(whole: dict[str, Any], start: Any) -> dict[str, Any]:
    """The components that `start` names, and those they name."""
    found: dict[str, Any] = {}
    waiting = list(_references(start))
    while waiting:
        kind, name = waiting.pop()
        if name in found.setdefault(kind, {}):
            continue
        found[kind][name] = _component(whole["components"][kind], name)
        waiting += _references(found[kind][name])
    return found


def _component(known: dict[str, Any], name: str) -> Any:
    asked = name not in known
    schema = _without_references(known[name.removeprefix(_ASKED) if asked else name])
    return _as_asked(schema) if asked else schema


def _without_references(schema: dict[str, Any]) -> dict[str, Any]:
    choices = schema.get("oneOf")
    if choices is None or {"$ref": _REFERENCE} not in choices:
        return schema
    return {**schema, "oneOf": [one for one in choices if one != {"$ref": _REFERENCE}]}


def _references(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        if isinstance(target := value.get("$ref"), str):
            _, _, kind, name = target.split("/")
            yield kind, name
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
