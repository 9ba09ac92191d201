"""make conformance reads what suites tell, and cuts OpenAI's document, as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conformance.openapi_cut import cut
from conformance.outcomes import (
    WHY_CHARACTERS_MAX,
    Outcome,
    of_json_lines,
    of_junit,
    of_llm_comply,
    of_schemathesis,
)

TEXT = {"type": "string"}


def test_scripts_lines_are_read_among_noise() -> None:
    line = {"test": "chat", "status": "failed", "why": "at 0x7f00\n twice"}
    (found,) = of_json_lines(f"noise\n{json.dumps(line)}\n{{}}\n")
    assert found == Outcome("chat", "failed", "at … twice")
    long = json.dumps({**line, "why": "x" * 1_000})
    assert len(of_json_lines(long)[0].why) == WHY_CHARACTERS_MAX


def test_llm_comply_tells_errors_or_warnings() -> None:
    results = [
        {"id": "a", "status": "passed", "warnings": ["w"]},
        {"id": "b", "status": "failed", "errors": ["one", "two"]},
    ]
    found = of_llm_comply("heading\n" + json.dumps({"results": results}))
    assert found == [Outcome("a", "passed", "w"), Outcome("b", "failed", "one; two")]


def test_junit_is_read(tmp_path: Path) -> None:
    cases = (
        '<testcase classname="f.A" name="one"/>'
        '<testcase classname="f.A" name="two"><failure message="no"/></testcase>'
        '<testcase classname="f.A" name="three"><error message="broke"/></testcase>'
        '<testcase classname="f.A" name="four"><skipped message="not asked"/></testcase>'
    )
    (tmp_path / "x.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    assert of_junit(tmp_path / "x.xml") == [
        Outcome("A.one", "passed"),
        Outcome("A.two", "failed", "no"),
        Outcome("A.three", "failed", "broke"),
        Outcome("A.four", "skipped", "not asked"),
    ]


def test_schemathesis_findings_go_to_their_operations(tmp_path: Path) -> None:
    failure = {"title": "Server error", "count": 2, "operations": ["POST /a"]}
    report: dict[str, Any] = {"complete": True, "failures": [failure], "errors": []}
    (tmp_path / "x.json").write_text(json.dumps(report))
    log = """
________ POST /a ________
1. Test Case ID: Lj

- ST100 Server error

    It should not be
    Invalid component: in body - user: Incorrect type

[500] No:

____ SUMMARY ____
"""
    assert of_schemathesis(tmp_path / "x.json", ("POST /a", "GET /b"), log) == [
        Outcome("POST /a", "failed", "Server error: in body - user: Incorrect type"),
        Outcome("GET /b", "passed"),
    ]


def test_a_finding_of_a_method_that_the_document_lacks_is_told_beside(tmp_path: Path) -> None:
    failure = {"title": "Unsupported method", "count": 1, "operations": ["PUT /a"]}
    report = {"complete": True, "failures": [failure], "errors": [{"title": "No route"}]}
    (tmp_path / "x.json").write_text(json.dumps(report))
    found = of_schemathesis(tmp_path / "x.json", ("POST /a", "GET /b"), "")
    assert [(one.test, one.status) for one in found] == [
        ("POST /a", "failed"),
        ("GET /b", "passed"),
        ("all operations", "failed"),
    ]


def test_the_document_is_cut_to_what_is_served() -> None:
    asked = {"properties": {"model": TEXT, "max_tokens": TEXT, "tools": TEXT, "stop": TEXT}}
    schemas = {
        "Ask": {"allOf": [{"$ref": "#/components/schemas/Base"}, {"required": ["messages"]}]},
        "Base": {**asked, "properties": {**asked["properties"], "messages": TEXT}},
        "Unused": TEXT,
        "Answer": TEXT,
    }
    told = {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}}
    post = {
        "x-examples": 1,
        "responses": {"200": {"content": told}},
        "requestBody": {
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Ask"}}}
        },
    }
    get = {"parameters": [{"name": "model"}], "responses": {}}
    paths: dict[str, Any] = {
        path: {"post": json.loads(json.dumps(post))}
        for path in ("/chat/completions", "/completions", "/responses", "/embeddings", "/files")
    }
    paths |= {"/models": {"get": get}, "/models/{model}": {"get": get}}
    whole = {"openapi": "3", "info": {}, "paths": paths, "components": {"schemas": schemas}}
    made = cut(whole, "toy", None)
    assert set(made["paths"]) == set(paths) - {"/files", "/embeddings"}
    chat = made["paths"]["/chat/completions"]["post"]
    body = chat["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["messages", "model"]
    assert body["properties"]["model"]["enum"] == ["toy"]
    assert {"stop", "messages"} <= body["properties"].keys()
    assert not {"tools", "max_tokens"} & body["properties"].keys()
    assert set(made["components"]["schemas"]) == {"Answer"}
    assert "text/event-stream" in chat["responses"]["200"]["content"]
    assert "x-examples" not in chat


def test_a_request_may_hold_null_where_a_field_may_be_absent_and_an_answer_may_not() -> None:
    part = {
        "type": "object",
        "required": ["text", "annotations"],
        "properties": {"text": TEXT, "annotations": TEXT, "kind": {"type": "string", "enum": [1]}},
    }
    reference = {"$ref": "#/components/schemas/Part"}
    ask = {"properties": {"messages": {"type": "array", "items": reference}}}
    content = {"application/json": {"schema": ask}}
    told = {"200": {"content": {"application/json": {"schema": reference}}}}
    post = {"responses": told, "requestBody": {"content": content}}
    get = {"parameters": [{"name": "model"}], "responses": {}}
    paths = {key: {"get": get} for key in ("/models", "/models/{model}")}
    paths |= {
        path: {"post": json.loads(json.dumps(post))}
        for path in ("/chat/completions", "/completions", "/responses")
    }
    whole = {"openapi": "3", "info": {}, "paths": paths, "components": {"schemas": {"Part": part}}}
    parts = cut(whole, "toy", None)["components"]["schemas"]
    assert parts["Part"] == part
    assert parts["AskedPart"]["required"] == ["text"]
    assert parts["AskedPart"]["properties"] == {
        "text": TEXT,
        "annotations": {"type": ["array", "null"]},
        "kind": {"type": ["string", "null"], "enum": [1, None]},
    }
