"""langchain-tests' classes over langchain-openai: chat completions, responses, embeddings.

Run by `suites.py` with the pytest of the suites' environment, not by ours. What the tests may use
is what langchain-openai's own classes declare for OpenAI, less what needs a model that sees or
hears. Greedy, so that a run can be had again; and with a penalty on what was said before, without
which so small a model repeats itself until its tokens are used up.
"""

from __future__ import annotations

import os
from typing import Any

from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

ADDRESS = {"base_url": os.environ["SUBJECT_BASE"], "api_key": os.environ["SUBJECT_KEY"]}
TOKENS_MAX = 256


class TestChatCompletions(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        model = {"model": os.environ["SUBJECT_MODEL"], "temperature": 0, "max_tokens": TOKENS_MAX}
        bounds = {"timeout": 300, "max_retries": 0, "stream_usage": True}
        return {**ADDRESS, **model, **bounds, "frequency_penalty": 1.0}

    @property
    def supports_json_mode(self) -> bool:
        return True


class TestResponses(TestChatCompletions):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        params = super().chat_model_params
        # Open Responses has it and OpenAI's client does not: it goes into the body as it is.
        penalty = {"frequency_penalty": params.pop("frequency_penalty")}
        return {**params, "use_responses_api": True, "extra_body": penalty}


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[OpenAIEmbeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        base, model = os.environ["SUBJECT_EMBEDDINGS_BASE"], os.environ["SUBJECT_EMBEDDING_MODEL"]
        # Texts as text: it would else send tokens of OpenAI's own vocabulary.
        return {**ADDRESS, "base_url": base, "model": model, "check_embedding_ctx_length": False}
