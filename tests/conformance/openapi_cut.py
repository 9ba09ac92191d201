"""OpenAI's own OpenAPI document, cut to the operations that are served here, for schemathesis.

The document is the one llm-comply brings with it (specs/openai_chat.json in the suites'
environment), so its version is fixed by llm-comply's. The model is the one that is served; how long
an answer may be is bounded when a request is sent (schemathesis_hooks.py). Fields that
docs/gateway.md says are refused are left out, so that most requests are drawn and their answers
compared with OpenAI's schema; what an answer must hold stays OpenAI's.
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
    "/embeddings": {},
}
# Refused here; and the document's oneOf takes a message that has an id for one of these as well, so
# that no such message would be right.
_REFERENCE: Final = "#/components/schemas/ItemReferenceParam"
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
    """One object with all fields of `schema` but those left out, and no others. Any of them may be
    null, which is as good as absent, there as here, whatever the document says."""
    fields, required = _flat(whole, schema)
    for name in _LEFT_OUT[path]:
        fields.pop(name, None)
    fields = {name: {"nullable": True, "allOf": [inner]} for name, inner in fields.items()}
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


def _reached(whole: dict[str, Any], start: Any) -> dict[str, Any]:
    """The components that `start` names, and those they name."""
    found: dict[str, Any] = {}
    waiting = list(_references(start))
    while waiting:
        kind, name = waiting.pop()
        if name in found.setdefault(kind, {}):
            continue
        found[kind][name] = _without_references(whole["components"][kind][name])
        waiting += _references(found[kind][name])
    return found


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
