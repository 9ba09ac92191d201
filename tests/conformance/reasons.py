"""Why a test of a suite does not pass against the gateway, where that is not a fault of ours.

A failure without a line here is one of ours, and `make conformance` ends with 1. A line that no
result needs any more fails tests/test_compatibility_page.py.
"""

from __future__ import annotations

from typing import Final

NO_EYES: Final = (
    "the model reads text only, and the gateway says so: 400 `image_refused`; the simulated model "
    "reads pictures, and the test passes"
)
NO_KEYS: Final = (
    "`json_object` promises JSON, not which keys it has: so small a model leaves one out "
    "(with `json_schema` it cannot); the simulated model does not"
)
NO_CALL: Final = (
    "with `tool_choice: auto` the model may answer without a call, and one of 135M parameters "
    "does; the simulated model calls, and the test passes"
)

# (suite, test) -> reason
FAILED: Final[dict[tuple[str, str], str]] = {
    ("llm-comply openai-chat", "chat-image-input"): NO_EYES,
    ("llm-comply open-responses", "image-input"): NO_EYES,
    ("llm-comply anthropic", "anth-image-input"): NO_EYES,
    ("langchain-tests chat", "TestChatCompletions.test_json_mode"): NO_KEYS,
    ("langchain-tests chat", "TestChatCompletions.test_agent_loop[model0]"): NO_CALL,
    ("langchain-tests chat", "TestChatCompletions.test_agent_loop[model1]"): NO_CALL,
    ("langchain-tests responses", "TestResponses.test_json_mode"): NO_KEYS,
    ("langchain-tests responses", "TestResponses.test_agent_loop[model0]"): NO_CALL,
    ("langchain-tests responses", "TestResponses.test_agent_loop[model1]"): NO_CALL,
}
