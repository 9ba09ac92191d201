"""For schemathesis: a check of ours, and answers of a few tokens where a request bounds none."""

from __future__ import annotations

from typing import Any

import schemathesis

FEW_TOKENS = {
    "/chat/completions": ("max_completion_tokens", 2),
    "/completions": ("max_tokens", 2),
    "/responses": ("max_output_tokens", 16),
}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """A longer answer than a few tokens is not asked for: a real model would write for a minute."""
    name, tokens = FEW_TOKENS.get(case.operation.path, ("", 0))
    if name and isinstance(case.body, dict):
        asked = case.body.get(name)
        if asked is None or (type(asked) is int and asked > tokens):
            case.body[name] = tokens


@schemathesis.check
def refused_as_openai_does(ctx: Any, response: Any, case: Any) -> None:
    """`error` with a type, a message and a string code, whatever was sent; and never a 500."""
    if response.status_code < 400:
        return
    assert response.status_code != 500, "a fault of the server"
    body = response.json()
    error = body.get("error") if isinstance(body, dict) else None
    assert isinstance(error, dict), "no error object"
    assert isinstance(error.get("code"), str), "the code is no string"
    assert error.get("message"), "no message"
    assert isinstance(error.get("type"), str), "no type"
