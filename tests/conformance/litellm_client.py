"""What a program does with litellm as its client: litellm.completion(model="openai/...")."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any

import litellm
from checks import embedding_model, equal, reasoning_model, refused, run

MODEL = "openai/" + os.environ["SUBJECT_MODEL"]
HELLO = [{"role": "user", "content": "Say hello."}]
WHERE: dict[str, Any] = {
    "api_base": os.environ["SUBJECT_BASE"],
    "api_key": os.environ["SUBJECT_KEY"],
    "timeout": 300,
    "num_retries": 0,
    "max_retries": 0,
}


def ask(**more: Any) -> Any:
    return litellm.completion(model=MODEL, **{"messages": HELLO, **WHERE, **more})


def chat() -> None:
    answer = ask(max_tokens=8)
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0


def stream() -> None:
    chunks = list(ask(max_tokens=8, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert any(getattr(chunk, "usage", None) for chunk in chunks)


def tool() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
    tools = [{"type": "function", "function": {"name": "pick", "parameters": schema}}]
    answer = ask(max_tokens=100, tools=tools, tool_choice="required")
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments)["a"] in ("x", "y")


def reasoning() -> None:
    effort = {"reasoning_effort": "low"}  # as litellm passes it on under any model's name
    asked = {"model": f"openai/{reasoning_model()}", "messages": HELLO, "extra_body": effort}
    message = litellm.completion(**asked, **WHERE).choices[0].message
    assert message.content
    assert message.reasoning_content
    chunks = litellm.completion(**asked, **WHERE, stream=True)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    told = "".join(getattr(one, "reasoning_content", None) or "" for one in deltas)
    equal(told, message.reasoning_content)


def unknown_model() -> None:
    ask = partial(litellm.completion, model="openai/no-such-model", messages=HELLO, **WHERE)
    refused(litellm.NotFoundError, ask)


def wrong_key() -> None:
    refused(litellm.AuthenticationError, partial(ask, max_tokens=1, api_key="wrong"))


def too_long_a_prompt() -> None:
    long = [{"role": "user", "content": "word " * 20_000}]
    error = refused(litellm.BadRequestError, partial(ask, max_tokens=1, messages=long))
    equal(type(error), litellm.ContextWindowExceededError)  # which it knows by the text


def embedding() -> None:
    where = {**WHERE, "api_base": os.environ["SUBJECT_EMBEDDINGS_BASE"]}
    model = "openai/" + embedding_model()
    made = litellm.embedding(model=model, input=["a cat", "tax law"], **where)
    assert len(made.data) == 2
    assert len(made.data[0]["embedding"]) > 1


if __name__ == "__main__":
    run(chat, stream, tool, reasoning, unknown_model, wrong_key, too_long_a_prompt, embedding)
