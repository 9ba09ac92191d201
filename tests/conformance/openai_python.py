"""What a program does with openai-python: each check raises if the server is not OpenAI enough."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any

import openai
from checks import embedding_model, equal, reasoning_model, refused, run
from openai import OpenAI

CLIENT = OpenAI(
    base_url=os.environ["SUBJECT_BASE"],
    api_key=os.environ["SUBJECT_KEY"],
    max_retries=0,
    timeout=300,
)
MODEL = os.environ["SUBJECT_MODEL"]
HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "blue"]},
        "count": {"type": "integer", "enum": [1, 2]},
    },
    "required": ["colour", "count"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "paint", "parameters": SCHEMA}}


def models() -> None:
    assert MODEL in [one.id for one in CLIENT.models.list()]
    assert CLIENT.models.retrieve(MODEL).id == MODEL


def chat() -> None:
    answer = CLIENT.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=8)
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer._request_id, "x-request-id"


def chat_stream_with_usage() -> None:
    options: Any = {"include_usage": True}
    chunks = list(
        CLIENT.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=8, stream=True, stream_options=options
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    finished = [c.choices[0].finish_reason for c in chunks[:-1] if c.choices]
    assert finished[-1] in ("stop", "length")
    assert set(finished[:-1]) == {None}


def chat_of_two_choices() -> None:
    answer = CLIENT.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=4, n=2)
    assert [one.index for one in answer.choices] == [0, 1]


def chat_logprobs() -> None:
    answer = CLIENT.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=4, logprobs=True, top_logprobs=3
    )
    assert answer.choices[0].logprobs is not None
    entries = answer.choices[0].logprobs.content or []
    assert 0 < len(entries) <= 4
    assert all(len(one.top_logprobs) == 3 and one.logprob <= 0 for one in entries)


def chat_stop() -> None:
    answer = CLIENT.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Count: one two three four five"}],
        max_tokens=32,
        stop=["e"],
    )
    assert "e" not in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason in ("stop", "length")


def chat_schema() -> None:
    answer = CLIENT.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=200,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "it", "schema": SCHEMA, "strict": True},
        },
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"colour", "count"}


def tool_demanded() -> None:
    answer = CLIENT.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=200, tools=[TOOL], tool_choice="required"
    )
    (call,) = answer.choices[0].message.tool_calls or ()
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.type == "function"
    assert set(json.loads(call.function.arguments)) == {"colour", "count"}


def tool_streamed() -> None:
    with CLIENT.chat.completions.stream(
        model=MODEL, messages=HELLO, max_tokens=200, tools=[TOOL], tool_choice="required"
    ) as stream:
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or ()
    assert set(json.loads(call.function.arguments)) == {"colour", "count"}


def tool_results() -> None:
    call: Any = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "paint", "arguments": '{"colour": "red", "count": 1}'},
    }
    messages: list[Any] = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "painted"},
    ]
    answer = CLIENT.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=8, tools=[TOOL]
    )
    assert answer.choices[0].message.role == "assistant"


def completion() -> None:
    answer = CLIENT.completions.create(model=MODEL, prompt="Once upon", max_tokens=6, echo=True)
    assert answer.choices[0].text.startswith("Once upon")


def completion_logprobs() -> None:
    answer = CLIENT.completions.create(model=MODEL, prompt="Once upon", max_tokens=4, logprobs=2)
    told = answer.choices[0].logprobs
    assert told is not None
    assert len(told.tokens or ()) == len(told.token_logprobs or ()) == len(told.text_offset or ())


def response() -> None:
    answer = CLIENT.responses.create(model=MODEL, input="Say hello.", max_output_tokens=16)
    assert answer.status in ("completed", "incomplete")
    assert answer.output_text
    assert answer.usage is not None
    assert answer.usage.output_tokens > 0


def response_stream() -> None:
    with CLIENT.responses.stream(model=MODEL, input="Say hello.", max_output_tokens=16) as events:
        seen = list(events)
    last = seen[-1]
    assert seen[0].type == "response.created"
    assert last.type in ("response.completed", "response.incomplete")
    assert last.response.output_text


def response_tool() -> None:
    tool: Any = {"type": "function", "name": "paint", "parameters": SCHEMA, "strict": True}
    answer = CLIENT.responses.create(
        model=MODEL, input="Paint.", tools=[tool], tool_choice="required", max_output_tokens=200
    )
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert set(json.loads(call.arguments)) == {"colour", "count"}


def response_continued() -> None:
    first = CLIENT.responses.create(model=MODEL, input="Say hello.", max_output_tokens=16)
    more = CLIENT.responses.create(
        model=MODEL, input="And?", previous_response_id=first.id, max_output_tokens=16
    )
    assert more.previous_response_id == first.id
    assert CLIENT.responses.retrieve(first.id).id == first.id


def reasoning_of_a_chat() -> None:
    ask = partial(CLIENT.chat.completions.create, model=reasoning_model(), messages=HELLO)
    answer = ask(reasoning_effort="low")
    message: Any = answer.choices[0].message
    assert message.content
    assert message.reasoning_content
    equal(message.reasoning, message.reasoning_content)
    assert message.reasoning_content not in message.content
    details = answer.usage.completion_tokens_details
    assert 0 < details.reasoning_tokens < answer.usage.completion_tokens
    deltas = [one.choices[0].delta for one in ask(reasoning_effort="low", stream=True)]
    told = "".join(getattr(one, "reasoning_content", None) or "" for one in deltas)
    equal(told, message.reasoning_content)
    equal("".join(one.content or "" for one in deltas), message.content)
    without = ask(reasoning_effort="none")
    equal(without.usage.completion_tokens_details.reasoning_tokens, 0)
    equal(without.choices[0].message.content, message.content)


def reasoning_before_a_schema() -> None:
    shape: Any = {"type": "json_schema", "json_schema": {"name": "look", "schema": SCHEMA}}
    ask = partial(CLIENT.chat.completions.create, model=reasoning_model(), messages=HELLO)
    thought: Any = ask(response_format=shape, reasoning_effort="low").choices[0].message
    assert thought.reasoning_content
    called: Any = ask(tools=[TOOL], tool_choice="required", reasoning_effort="low")
    assert called.choices[0].message.reasoning_content
    (call,) = called.choices[0].message.tool_calls
    without: Any = ask(response_format=shape).choices[0].message
    assert getattr(without, "reasoning_content", None) is None
    for text in (thought.content, call.function.arguments, without.content):
        equal(json.loads(text).keys(), {"colour", "count"})


def reasoning_of_a_response() -> None:
    asked: Any = {"effort": "low", "summary": "auto"}
    answer = CLIENT.responses.create(model=reasoning_model(), input="Say hello.", reasoning=asked)
    thought, said = answer.output
    equal((thought.type, said.type), ("reasoning", "message"))
    assert thought.content[0].text.startswith(thought.summary[0].text.rstrip("…"))
    assert answer.output_text
    again = CLIENT.responses.create(
        model=reasoning_model(),
        input=[*answer.output, {"role": "user", "content": "And?"}],  # type: ignore[list-item]
    )
    assert again.output_text
    with CLIENT.responses.stream(
        model=reasoning_model(), input="Say hello.", reasoning=asked
    ) as stream:
        kinds = [event.type for event in stream]
        equal(stream.get_final_response().output[0].content[0].text, thought.content[0].text)
    assert "response.reasoning_text.delta" in kinds
    assert "response.reasoning_summary_text.done" in kinds


def unknown_model() -> None:
    ask = partial(CLIENT.chat.completions.create, model="no-such-model", messages=HELLO)
    equal(refused(openai.NotFoundError, ask).code, "model_not_found")


def wrong_key() -> None:
    other = CLIENT.with_options(api_key="wrong").chat.completions
    ask = partial(other.create, model=MODEL, messages=HELLO, max_tokens=1)
    equal(refused(openai.AuthenticationError, ask).code, "invalid_api_key")


def too_long_a_prompt() -> None:
    long: list[Any] = [{"role": "user", "content": "word " * 20_000}]
    ask = partial(CLIENT.chat.completions.create, model=MODEL, messages=long, max_tokens=1)
    equal(refused(openai.BadRequestError, ask).code, "context_length_exceeded")


def wrong_type() -> None:
    more: Any = {"temperature": "hot"}
    ask = partial(CLIENT.chat.completions.create, model=MODEL, messages=HELLO, **more)
    equal(type(refused(openai.BadRequestError, ask).code), str)


def stream_left_early() -> None:
    with CLIENT.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=400, stream=True
    ) as stream:
        next(iter(stream))
    chat()


def embeddings() -> None:
    client = CLIENT.with_options(base_url=os.environ["SUBJECT_EMBEDDINGS_BASE"])
    model = embedding_model()
    made = client.embeddings.create(model=model, input=["a cat", "a kitten", "tax law"])
    floats = client.embeddings.create(model=model, input="a cat", encoding_format="float")
    cat, kitten, law = (one.embedding for one in made.data)
    assert len(cat) == len(floats.data[0].embedding)
    assert all(abs(a - b) < 1e-4 for a, b in zip(cat, floats.data[0].embedding, strict=True))
    assert dot(cat, kitten) > dot(cat, law)


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


if __name__ == "__main__":
    run(
        models, chat, chat_stream_with_usage, chat_of_two_choices, chat_logprobs, chat_stop,
        chat_schema, tool_demanded, tool_streamed, tool_results, completion, completion_logprobs,
        response, response_stream, response_tool, response_continued, reasoning_of_a_chat,
        reasoning_before_a_schema, reasoning_of_a_response, unknown_model, wrong_key,
        too_long_a_prompt, wrong_type, stream_left_early, embeddings,
    )  # fmt: skip
