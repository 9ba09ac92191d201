"""OpenAI's own client: a streamed answer, a JSON schema, a tool, and what the node signed."""

import base64
import json
import os
import sys
from pathlib import Path

from openai import OpenAI

MODEL = os.environ.get("ASSAY_MODEL", "smollm2-135m")
client = OpenAI()  # OPENAI_BASE_URL and OPENAI_API_KEY say where

# Tokens come as the node draws them. The last ones bring the receipts, one more chunk the counts.
stream = client.chat.completions.create(
    model=MODEL,
    messages=[{"role": "user", "content": "Why is the sky blue? One sentence."}],
    max_tokens=48,
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
        last = chunk
print(f"\n{chunk.usage.completion_tokens} tokens, receipts {last.assay['receipts']}")

# Only tokens that the schema allows are drawn. Bound strings, or a small model may not end them.
sky = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["blue", "grey", "red"]},
        "reason": {"type": "string", "maxLength": 80},
    },
    "required": ["colour", "reason"],
    "additionalProperties": False,
}
answer = client.chat.completions.create(
    model=MODEL,
    messages=[{"role": "user", "content": "Describe the sky at noon, as JSON."}],
    response_format={"type": "json_schema", "json_schema": {"name": "sky", "schema": sky}},
)
print("JSON:", json.loads(answer.choices[0].message.content))

# A tool that must be called is drawn under the schema of its parameters, too.
place = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
raw = client.chat.completions.with_raw_response.create(
    model=MODEL,
    messages=[{"role": "user", "content": "What is the weather in Rome?"}],
    tools=[{"type": "function", "function": {"name": "weather", "parameters": place}}],
    tool_choice="required",
)
call = raw.parse().choices[0].message.tool_calls[0].function
print("tool:", call.name, json.loads(call.arguments))

# Every answer names its receipt. `assay receipt verify` checks a file of them, offline.
receipt = client.get(f"/receipts/{raw.headers['x-assay-receipt']}", cast_to=dict[str, object])
record = base64.b64decode(receipt["record"])
Path(sys.argv[1]).write_bytes(len(record).to_bytes(4, "big") + record)
print("node", receipt["node"], "took", receipt["credit"], "micro-credits")
