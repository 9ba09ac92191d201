"""What a program does with llama-index's OpenAI-like classes."""

from __future__ import annotations

import os
from typing import Any

from checks import embedding_model, run
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

WHERE: dict[str, Any] = {
    "api_base": os.environ["SUBJECT_BASE"],
    "api_key": os.environ["SUBJECT_KEY"],
    "timeout": 300,
    "max_retries": 0,
}
LLM = OpenAILike(
    model=os.environ["SUBJECT_MODEL"],
    is_chat_model=True,
    is_function_calling_model=True,
    context_window=2048,
    max_tokens=100,
    **WHERE,
)
HELLO = [ChatMessage(role="user", content="Say hello.")]


def chat() -> None:
    assert LLM.chat(HELLO, max_tokens=8).message.content


def stream() -> None:
    pieces = list(LLM.stream_chat(HELLO, max_tokens=8))
    assert pieces[-1].message.content


def complete() -> None:
    assert LLM.complete("Once upon", max_tokens=8).text


def plain_completion() -> None:
    plain = OpenAILike(model=os.environ["SUBJECT_MODEL"], is_chat_model=False, **WHERE)
    assert plain.complete("Once upon", max_tokens=8).text


def tool() -> None:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    told = FunctionTool.from_defaults(fn=add)
    answer = LLM.chat_with_tools([told], user_msg="Add 1 and 2.", tool_required=True)
    (call,) = LLM.get_tool_calls_from_response(answer)
    assert call.tool_name == "add"
    assert set(call.tool_kwargs) == {"a", "b"}


def embedding() -> None:
    model = OpenAILikeEmbedding(
        model_name=embedding_model(),
        **{**WHERE, "api_base": os.environ["SUBJECT_EMBEDDINGS_BASE"]},
    )
    one, two = model.get_text_embedding_batch(["a cat", "tax law"])
    assert len(one) == len(two) > 1
    assert len(model.get_query_embedding("a cat")) == len(one)


if __name__ == "__main__":
    run(chat, stream, complete, plain_completion, tool, embedding)
