"""Embeddings through the whole network, in processes of their own: an unmodified OpenAI client, a
gateway, a coordinator, and nodes that compute a small BERT of arbitrary numbers."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import trio
from openai import OpenAI

from assay import AsyncClient, ReceiptRecord, read_records
from assay.embedding import EmbeddingsFailed
from assay.tokenizer import Tokenizer
from assay.verify import replay, verify
from assay_node.models.bert import convert_bert
from assay_node.models.card import build_card
from assay_protocol.cards import ModelCard, encode_card
from assay_protocol.messages import Receipt, Ticket
from assay_protocol.signing import peek
from assay_simnet.drivers.real import RealNetwork, real_network
from bert_cases import WIDTH, bert_tensors, forward, write_bert
from end_to_end.gateway_process import start_gateway
from end_to_end.scripted_network import CLIENT, FAUCET, UNHURRIED

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]
POLICY = "heartbeat_us = 500000\nround_us = 200000\n"  # every job of a new node is audited
PRICE = 5_000  # micro-credits for 1000 tokens
TEXTS = ("word1 word2s", "a b word7", "word11 wording word12ed b", "word1 words word2")
JOBS = 4


@dataclass
class World:
    network: RealNetwork
    file: Path
    card: ModelCard


async def start(network: RealNetwork, folder: Path, nodes: Sequence[str]) -> World:
    """A coordinator that lists the small BERT, and honest nodes that serve it."""
    pytest.importorskip("llama_cpp")
    file = convert_bert(write_bert(folder / "bert"), folder / "bert.gguf", kind="f16")
    card = build_card(file, name="small-bert", price_in=PRICE, price_out=0)
    (folder / "bert.card").write_bytes(encode_card(card))
    await network.start_coordinator(POLICY, folder / "bert.card", FAUCET)
    for name in nodes:
        await network.start_node(name, folder / "bert.card", file, slots=2, context=160)
    await network.wait_present(nodes)
    return World(network, file, card)


async def test_an_openai_client_embeds_and_its_receipts_are_replayed(tmp_path: Path) -> None:
    async with real_network(tmp_path) as network:
        world = await start(network, tmp_path, ["one", "two"])
        url = await start_gateway(network)
        await trio.to_thread.run_sync(use, url, world)
        async with AsyncClient.connect(
            network.address, seed=CLIENT.seed, limits=UNHURRIED
        ) as client:
            with trio.fail_after(180):
                found = await client.embed(TEXTS, model="small-bert", verify="now")
        assert [one.outcome for one in found.verdicts] == ["passed"]
        (record,) = found.receipts
        assert peek(Receipt, record.receipt).class_id.endswith("/E")
        checked = await trio.to_thread.run_sync(lambda: replay(record, world.file, threads=1))
        assert [step.ok for step in checked.steps] == [True]
        await embed_by_command(tmp_path, network.address, found.vectors)


async def embed_by_command(
    folder: Path, coordinator: str, vectors: Sequence[Sequence[float]]
) -> None:
    """`assay embed`, a program of its own: the same bits as lines and as a matrix, and receipts."""
    places = {name: str(folder / "home") for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME")}

    async def run(*given: str, stdin: bytes = b"") -> bytes:
        program = str(Path(sys.executable).with_name("assay"))
        flags = ["--coordinator", coordinator, "--model", "small-bert"]
        with trio.fail_after(180):
            done = await trio.run_process(
                [program, "embed", *flags, *given],
                stdin=stdin,
                capture_stdout=True,
                env=os.environ | places,
            )
        return done.stdout

    kept = folder / "kept.records"
    out = await run(*TEXTS, "--json", "--verify", "now", "--receipt", str(kept))
    *rows, last = [json.loads(line) for line in out.splitlines()]
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    assert [tuple(row["embedding"]) for row in rows] == list(vectors)
    told = last["summary"]
    assert (told["receipts"], told["receipts_verified"], told["audits"]) == (1, 1, ["passed"])
    assert told["credit"] == -(-told["prompt_tokens"] * PRICE // 1000)
    (record,) = read_records(kept.read_bytes())
    assert verify(record).ok
    lines = "".join(f"{text}\n" for text in TEXTS).encode()
    matrix = np.load(io.BytesIO(await run("--format", "npy", stdin=lines)))
    assert matrix.dtype == np.dtype("<f4")
    assert [tuple(row) for row in matrix.tolist()] == list(vectors)


def use(url: str, world: World) -> None:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        raw = client.embeddings.with_raw_response.create(model="small-bert", input=list(TEXTS))
        packed = raw.parse()  # asked for as base64 by default
        texts = [tokens_of(world.card, text) for text in TEXTS]
        listed = client.embeddings.create(
            model="small-bert", input=texts, encoding_format="float", dimensions=WIDTH
        )
        assert packed.usage.prompt_tokens == listed.usage.total_tokens == sum(map(len, texts))
        for index, (one, other) in enumerate(zip(packed.data, listed.data, strict=True)):
            assert (one.index, other.index) == (index, index)
            assert one.embedding == other.embedding, "the same bits by another node and job"
            assert np.dot(one.embedding, reference(texts[index])) > 0.9999
        alone = client.embeddings.create(model="small-bert", input=TEXTS[2])
        assert alone.data[0].embedding == packed.data[2].embedding, "nor do the texts beside it"
        check_receipt(client, raw.headers["x-assay-receipt"], packed.data[0].embedding)
        assert int(raw.headers["x-assay-credit"]) == -(-packed.usage.total_tokens * PRICE // 1000)
        refused(client)
    with httpx.Client(base_url=url) as http:
        (told,) = http.get("/v1/models").json()["data"]
        assert (told["id"], told["dimensions"]) == ("small-bert", WIDTH)


def check_receipt(client: OpenAI, name: str, vector: list[float]) -> None:
    told = json.loads(client.get(f"/receipts/{name}", cast_to=httpx.Response).text)
    record = ReceiptRecord.decode(base64.b64decode(told["record"]))
    checked = verify(record)
    assert checked.ok
    assert ("leaves root", True) in [(step.name, step.ok) for step in checked.steps]
    assert record.output.startswith(struct.pack(f"<{WIDTH}f", *vector))
    assert peek(Ticket, record.ticket).price_out == 0


def refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(
            model="small-bert", messages=[{"role": "user", "content": "a"}]
        )
    assert (error.value.code, error.value.param) == ("task_refused", "model")
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model="small-bert", input="a", dimensions=8)
    assert (error.value.code, error.value.param) == ("unsupported_parameter", "dimensions")
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model="small-bert", input="word1 " * 200)
    assert error.value.code == "context_length_exceeded"


async def test_who_serves_another_model_is_convicted(tmp_path: Path) -> None:
    """The same shape with other weights, in the exact class of the honest ones."""
    async with real_network(tmp_path) as network:
        world = await start(network, tmp_path, ["one", "two", "three"])
        cheap = write_bert(tmp_path / "cheap", tensors=bert_tensors(seed=1))
        file = convert_bert(cheap, tmp_path / "cheap.gguf", kind="f16")
        card = tmp_path / "bert.card"
        await network.start_cheat("cheat", card, world.file, file, slots=2, context=160)
        await network.wait_present(["cheat"])
        cheat = network.key_of("cheat")
        outcomes: list[str] = []

        async def ask() -> None:
            try:
                await client.embed(TEXTS, nodes=[cheat], verify="now")
                outcomes.append("passed")
            except EmbeddingsFailed as failure:
                outcomes.append(failure.code)

        async with AsyncClient.connect(
            network.address, seed=CLIENT.seed, limits=UNHURRIED
        ) as client:
            with trio.fail_after(240):
                async with trio.open_nursery() as asking:  # one job alone only suspends
                    for _ in range(JOBS):
                        asking.start_soon(ask)
                while (await network.node("cheat")).state != "convicted":  # type: ignore[union-attr]
                    await trio.sleep(0.2)
        assert outcomes == ["audit_failed"] * JOBS
        for name in ("one", "two", "three"):
            honest = await network.node(name)
            assert honest is not None
            assert honest.state in ("probation", "active")


def tokens_of(card: ModelCard, text: str) -> list[int]:
    return list(Tokenizer.from_card(card).encode(text, special=False, bos=True, eos=True))


def reference(tokens: Sequence[int]) -> np.ndarray:  # type: ignore[type-arg]
    """Of the paper's formulas, in double precision."""
    mean = forward(bert_tensors(), tuple(tokens)).mean(axis=0)
    return mean / np.linalg.norm(mean)
