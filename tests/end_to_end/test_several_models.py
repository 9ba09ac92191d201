"""One real node with several models: it loads, evicts and answers right, with and without adapters.

What it answers is replayed here by an engine of our own, and must be drawn again to the token.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from gguf import GGMLQuantizationType as Kind

from assay import AsyncClient
from assay.answers import Completion
from assay_node.cli import main
from assay_node.engine.interface import Replay
from assay_node.engine.library import engines
from assay_node.engine.quantize import requantize
from assay_node.engine.supervisor import open_llama_engine
from assay_node.engine.trials import choose
from assay_node.models.card import build_card
from assay_protocol.cards import ModelCard, decode_card, encode_card
from assay_protocol.hashing import job_seed
from assay_protocol.messages import Ticket
from assay_protocol.signing import peek
from assay_simnet.drivers.real import RealNetwork, real_network
from end_to_end.scripted_network import CLIENT, FAUCET, POLICY, UNHURRIED, wait_booked
from lora_cases import write_adapter

pytestmark = [pytest.mark.end_to_end, pytest.mark.model, pytest.mark.slow]
SLOTS, CONTEXT = 4, 4096  # with which one model is estimated at 700 MiB, two at more than 1 GiB
AUDITED = "heartbeat_us = 500000\n"  # every job of a new node
START_SECONDS_MAX = 900.0  # two models are tried out the first time, road by road
KINDS = ("Q4_0", "Q8_0")
PROMPT = "The lighthouse keeper wrote in his diary:"


@dataclass
class Offered:
    """A model file and its card."""

    file: Path
    path: Path
    card: ModelCard


def make_model(folder: Path, kind: str) -> Offered:
    """The test model in another format, and its card in the catalogue's folder."""
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = Path(os.environ.get("ASSAY_TEST_MODEL") or Path.home() / ".cache/assay/models" / name)
    assert model.is_file(), f"put {name} at {model}, or its path into ASSAY_TEST_MODEL"
    file = folder / f"{kind}.gguf"
    requantize(model, file, kind)
    card = build_card(file, name=kind, price_in=100, price_out=400)
    path = folder / "catalogue" / f"{kind}.card"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encode_card(card))
    return Offered(file, path, card)


@asynccontextmanager
async def network_of(
    folder: Path, *models: Offered, nodes: tuple[str, ...] = ("node",), policy: str = POLICY
) -> AsyncIterator[RealNetwork]:
    """A coordinator and nodes that serve two models, each within a GiB of memory."""
    first, second = models
    async with real_network(folder) as network:
        await network.start_coordinator(policy, folder / "catalogue", FAUCET)
        more = {"slots": SLOTS, "context": CONTEXT, "memory_gib": 1}
        named = f"{second.path}={second.file}"
        for name in nodes:
            await network.start_node(name, first.path, first.file, models=named, **more)
        await network.wait_present(nodes, START_SECONDS_MAX)
        yield network


def states(network: RealNetwork) -> dict[str, str]:
    """Of each model, as `node status` says."""
    status = json.loads((network.folder / "node" / "status.json").read_text())
    return {one["model"]: one["state"] for one in status["models"]}


async def wait_states(network: RealNetwork, wanted: dict[str, str]) -> None:
    with trio.fail_after(60):
        while states(network) != wanted:
            await trio.sleep(0.2)


async def replayed(
    model: Offered, answer: Completion, loaded: Sequence[tuple[Path, bytes]] = ()
) -> None:
    """An engine of ours draws the same along the answer, from the receipt's own seed. `loaded`: the
    adapters the node's engine has, which decide by what road it computes."""
    record = answer.receipts[-1]
    ticket = peek(Ticket, record.ticket)
    assert ticket.model == model.card.model
    replay = Replay(
        prompt=record.prompt_tokens,
        output=record.output_tokens,
        start=0,
        sampler=ticket.sampler,
        seed=job_seed(ticket.seed_ticket, record.nonce),
        adapter=model.card.adapter,
    )
    digest = model.card.digest
    profile = await trio.to_thread.run_sync(  # the node's, which is remembered
        lambda: choose(model.file, digest, "exact", threads=1, directory=engines(), adapters=loaded)
    )
    async with open_llama_engine(
        model.file, digest, slots=1, threads=1, profile=profile, adapters=loaded
    ) as engine:
        assert (await engine.replay(replay)).drawn == answer.tokens
    assert len(answer.tokens) > 0


async def test_two_models_take_turns_in_memory_for_one(tmp_path: Path) -> None:
    small, large = (make_model(tmp_path, kind) for kind in KINDS)
    keys = small.card.digest.hex(), large.card.digest.hex()
    async with network_of(tmp_path, small, large) as network:
        node = await network.node("node")
        assert node is not None
        assert {model.hex() for model in node.models} == set(keys)
        await wait_states(network, dict(zip(keys, ("resident", "absent"), strict=True)))
        answers: list[tuple[Offered, Completion]] = []
        async with AsyncClient.connect(
            network.address, seed=CLIENT.seed, limits=UNHURRIED
        ) as client:
            for model in (small, large, small):
                answer = await client.complete(PROMPT, model=model.card.name, max_tokens=24)
                answers.append((model, answer))
            await wait_booked(network, 3)
        await wait_states(network, dict(zip(keys, ("resident", "absent"), strict=True)))
        for model, answer in answers:
            await replayed(model, answer)
        log = (tmp_path / "node.log").read_text()
        assert log.count('"event": "engine_ready"') == 4, "two at the start, and one for each turn"
        assert "receipts_refused" not in log


async def test_a_model_and_the_same_with_an_adapter_are_two_models_of_one_engine(
    tmp_path: Path,
) -> None:
    plain = make_model(tmp_path, "Q8_0")
    adapter = write_adapter(tmp_path / "style.gguf", 1, Kind.Q8_0)
    path = tmp_path / "catalogue" / "style.card"
    made = ["models", "card", str(plain.file), "--adapter", str(adapter), "--name", "style"]
    assert main([*made, "-o", str(path)]) == 0
    styled = Offered(plain.file, path, decode_card(path.read_bytes()))
    assert styled.card.digest == plain.card.digest
    served = Offered(adapter, path, styled.card)
    nodes = ("node", "other")
    async with network_of(tmp_path, plain, served, nodes=nodes, policy=AUDITED) as network:
        for node in (await network.status()).nodes:
            assert set(node.models) == {plain.card.model, styled.card.model}
        async with AsyncClient.connect(
            network.address, seed=CLIENT.seed, limits=UNHURRIED
        ) as client:
            options = {"max_tokens": 24, "temperature": 0.0}
            first = await client.complete(PROMPT, model=plain.card.name, **options)
            other = await client.complete(PROMPT, model="style", **options)
            again = await client.complete(PROMPT, model=plain.card.name, **options)
        assert first.tokens == again.tokens
        assert first.tokens != other.tokens
        assert styled.card.adapter is not None
        loaded = [(adapter, styled.card.adapter)]
        await replayed(plain, first, loaded)
        await replayed(styled, other, loaded)
        await wait_audited(network, 3)
        for name in nodes:
            log = (tmp_path / f"{name}.log").read_text()
            assert log.count('"event": "engine_ready"') == 1, "one engine for both"


async def wait_audited(network: RealNetwork, jobs: int) -> None:
    """Until so many answers were replayed by the node that had not given them, and found right."""
    passed = 0
    with trio.fail_after(240):
        while passed < jobs:
            await trio.sleep(0.5)
            nodes = (await network.status()).nodes
            passed = sum(node.audits_passed for node in nodes)
            assert not any(node.audits_failed for node in nodes)
