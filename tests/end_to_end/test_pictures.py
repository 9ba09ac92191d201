"""A picture from an unmodified OpenAI client to a node and its auditor, in processes of their own.

The model is scripted: its answers follow from the picture as from any prompt token. A node that
answers about another picture fails its audit; the receipt proves offline which picture was shown.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import trio
from openai import OpenAI

from assay import ReceiptRecord, verify_answer
from assay_protocol.cards import encode_card
from assay_protocol.images import unpack_images
from assay_simnet.drivers.real import RealNetwork, real_network
from end_to_end import seeing_node
from end_to_end.gateway_process import start_gateway
from end_to_end.places import scripted_card
from end_to_end.scripted_network import FAUCET, POLICY
from sdk.picture_cases import picture_file, shown

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]
ONE, OTHER = picture_file((200, 30, 40), (900, 700), "JPEG"), picture_file((0, 0, 90))


async def test_a_picture_is_seen_checked_and_proved(tmp_path: Path) -> None:
    async with real_network(tmp_path) as network:
        await network.start_coordinator(POLICY, write_card(tmp_path), FAUCET)
        for name in ("node-a", "node-b"):
            await start(network, name, "honest")
        url = await start_gateway(network)
        with trio.fail_after(90):
            await trio.to_thread.run_sync(see, url)
            await start(network, "node-c", "blind")
            await trio.to_thread.run_sync(catch, url, network.key_of("node-c").hex())


def write_card(folder: Path) -> Path:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    about: dict[str, Any] = {"name": seeing_node.NAME, "chat_template": template}
    path = folder / "seeing.card"
    path.write_bytes(encode_card(scripted_card(**about, vision=seeing_node.SEES)))
    return path


async def start(network: RealNetwork, name: str, sight: str) -> None:
    flags = {
        "coordinator": network.address,
        "data_dir": network.folder / name,
        "listen": "/ip4/127.0.0.1/tcp/0",
        "engine": "scripted",
    }
    words = [f"{key}={value}" for key, value in flags.items()]
    await network.spawn(name, [sys.executable, seeing_node.__file__, sight, *words])
    await network.wait_present([name])


def ask(client: OpenAI, file: bytes, **extra: Any) -> Any:
    content: Any = [shown(file), {"type": "text", "text": "What is it?"}]
    return client.chat.completions.with_raw_response.create(
        model=seeing_node.NAME,
        messages=[{"role": "user", "content": content}],
        max_tokens=40,
        extra_body={"verify": "now", **extra},
    )


def see(url: str) -> None:
    """Answers about two pictures: audited, passed, and each provably about its own."""
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        for file, size in ((ONE, (256, 199)), (OTHER, (4, 3))):
            raw = ask(client, file)
            facts = raw.parse().model_extra["assay"]
            assert (facts["verdict"], facts["final"]) == ("passed", True)
            told = client.get(f"/receipts/{raw.headers['x-assay-receipt']}", cast_to=httpx.Response)
            record = ReceiptRecord.decode(base64.b64decode(told.json()["record"]))
            (image,) = unpack_images(record.images)
            assert (image.width, image.height) == size
            checked = verify_answer((record,))
            assert checked.ok
            assert ("1: images", True) in [(step.name, step.ok) for step in checked.steps]


def catch(url: str, blind: str) -> None:
    """A node that looks at another picture is found out by whoever looks at this one."""
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.APIStatusError) as failed:
            ask(client, ONE, node=blind)
        assert failed.value.body["code"] == "audit_failed"  # type: ignore[index]  # OpenAI's error
