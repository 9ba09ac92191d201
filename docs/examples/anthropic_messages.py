"""Anthropic's own client: a counted prompt, a streamed answer, a tool."""

import os

from anthropic import Anthropic

MODEL = os.environ.get("ASSAY_MODEL", "smollm2-135m")
client = Anthropic()  # ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY say where

question = {"role": "user", "content": "Why is the sea salty? One sentence."}
counted = client.messages.count_tokens(model=MODEL, messages=[question])
print("the question has", counted.input_tokens, "tokens")

with client.messages.stream(
    model=MODEL, max_tokens=48, system="You are brief.", messages=[question]
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
    final = stream.get_final_message()
print(f"\n{final.usage.output_tokens} tokens, ended by {final.stop_reason}")

# A tool that must be called is drawn under the schema of its input.
tide = {
    "name": "tide",
    "description": "The next high tide at a harbour",
    "input_schema": {
        "type": "object",
        "properties": {"harbour": {"enum": ["Bergen", "Bristol"]}},
        "required": ["harbour"],
    },
}
asked = [{"role": "user", "content": "When is high tide in Bristol?"}]
answer = client.messages.create(
    model=MODEL, max_tokens=200, messages=asked, tools=[tide], tool_choice={"type": "any"}
)
use = next(block for block in answer.content if block.type == "tool_use")
print("tool:", use.name, use.input)

# The tool's result goes back, and the model answers with it.
result = {"type": "tool_result", "tool_use_id": use.id, "content": "18:04"}
asked += [
    {"role": "assistant", "content": answer.content},
    {"role": "user", "content": [result]},
]
told = client.messages.create(model=MODEL, max_tokens=48, messages=asked, tools=[tide])
print("then:", [block.text if block.type == "text" else block.type for block in told.content])
