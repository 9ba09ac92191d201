"""A picture through the whole network, in processes of their own: an unmodified OpenAI client, a
gateway, a coordinator, and nodes that compute a small model and a projector of arbitrary numbers.
"""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from openai import OpenAI

from assay import AssayError, ReceiptRecord, replay, verify_answer
from assay_node import cli
from assay_protocol.messages import Receipt
from assay_protocol.signing import peek
from assay_simnet.drivers.real import real_network
from end_to_end.gateway_process import start_gateway
from end_to_end.scripted_network import FAUCET
from sdk.picture_cases import picture_file, shown
from vision_cases import TOKENS, write_projector, write_seer

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]
POLICY = "heartbeat_us = 500000\nround_us = 200000\n"  # every job of a new node is audited


async def test_a_picture_is_answered_about_and_the_answer_audited_bit_for_bit(
    tmp_path: Path,
) -> None:
    pytest.importorskip("llama_cpp")
    model = write_seer(tmp_path / "seer.gguf", arch="gemma3")
    projector, card = write_projector(tmp_path / "eyes.gguf", "gemma3"), tmp_path / "seer.card"
    argv = ["models", "card", str(model), "--projector", str(projector), "--name", "seer"]
    assert cli.main([*argv, "-o", str(card)]) == 0
    async with real_network(tmp_path) as network:
        await network.start_coordinator(POLICY, card, FAUCET)
        options: dict[str, Any] = {"slots": 2, "context": 512, "projector": projector}
        for name in ("one", "two"):
            await network.start_node(name, card, model, **options)
        await network.wait_present(["one", "two"])
        url = await start_gateway(network)
        with trio.fail_after(90):
            record = await trio.to_thread.run_sync(_see, url)
    await trio.to_thread.run_sync(_replay, record, model, projector)


def _replay(record: ReceiptRecord, model: Path, projector: Path) -> None:
    """Its receipt is enough to draw the answer again, with both files and the pixels it keeps."""
    with pytest.raises(AssayError, match="model_corrupt"):
        replay(record, model)
    with pytest.raises(AssayError, match="image_mismatch"):
        replay(dataclasses.replace(record, images=b""), model, projector=projector)
    replayed = replay(record, model, projector=projector)
    assert [step.ok for step in replayed.steps] == [True, True], replayed


def _see(url: str) -> ReceiptRecord:
    red, blue = picture_file((200, 30, 40), (90, 70), "JPEG"), picture_file((0, 0, 90))
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        said = [_ask(client, one) for one in (red, blue, red)]
    (first, words), (_, others), (_, again) = said
    assert words == again != others
    return first


def _ask(client: OpenAI, file: bytes) -> tuple[ReceiptRecord, tuple[bytes, str | None]]:
    """What is drawn, after it was audited and its receipt checked offline."""
    content: Any = [shown(file), {"type": "text", "text": "word1"}]
    raw = client.chat.completions.with_raw_response.create(
        model="seer",
        messages=[{"role": "user", "content": content}],
        max_tokens=12,
        temperature=0,
        extra_body={"verify": "now"},
    )
    answer = raw.parse()
    facts = answer.model_extra["assay"]
    assert (facts["verdict"], facts["final"]) == ("passed", True)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > TOKENS
    told = client.get(f"/receipts/{raw.headers['x-assay-receipt']}", cast_to=httpx.Response)
    record = ReceiptRecord.decode(base64.b64decode(told.json()["record"]))
    assert peek(Receipt, record.receipt).class_id.endswith("/E")
    assert verify_answer((record,)).ok
    return record, (record.output, answer.choices[0].message.content)
