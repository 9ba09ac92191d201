"""The prober on a network in memory: what it asks, remembers and tells."""

from __future__ import annotations

import json
import random
import stat
from pathlib import Path

import pytest

from assay.picture_prompt import PromptTokens
from assay.probe_command import Prober, ProbeResult
from assay.probe_pool import ProbeKeys, ProbePool
from assay.probe_shapes import JobShape, arrange
from assay_network.memory import MemoryNetwork
from assay_protocol.errors import AssayError
from sdk.client_network import FakeNetwork, running
from sdk.client_world import FakeCoordinator, node_key

SHAPES = arrange(
    [
        JobShape(0, 0, 12, 6, 6, {"temperature": 0.5}),
        JobShape(0, 9_000, 30, 6, 6, {"temperature": 0.5}),
        JobShape(0, 7_200_000, 12, 6, 7, {"temperature": 0.5, "logprobs": 1}, True),
    ]
)
TALKS = [{"turns": [f"first {i}", f"second {i}"]} for i in range(3)]


def write_pool(folder: Path, talks: list[dict[str, list[str]]] = TALKS) -> ProbePool:
    path = folder / "pool.jsonl"
    path.write_text("\n".join(json.dumps(talk) for talk in talks))
    return ProbePool(path)


@pytest.fixture(autouse=True)
def _texts_are_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def tokens(_: object, messages: list[dict[str, str]]) -> PromptTokens:
        said = b"".join(message["content"].encode() for message in messages)
        return PromptTokens(tuple(8 + byte for byte in said))

    monkeypatch.setattr("assay.catalogue.Model.prompt_of_chat", tokens)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


async def play(fake: FakeNetwork, pool: ProbePool, key: Path) -> list[ProbeResult]:
    told: list[ProbeResult] = []
    memory = MemoryNetwork(latency=lambda a, b: 0.02)
    fake.coordinator.nodes = 1
    async with running(fake, memory, [node_key(0)]):
        prober = Prober(
            fake.address,
            SHAPES,
            pool,
            told.append,
            transports=lambda owner: [memory.transport(owner)],
            draw=random.Random(3),
        )
        await prober.run([key])
    return told


async def test_a_persona_asks_like_its_pattern_and_is_audited(
    autojump_clock: object, tmp_path: Path
) -> None:
    third = (3).to_bytes(16, "big")
    fake = FakeNetwork(coordinator=FakeCoordinator(outcomes={third: "failed"}, undecided=40))
    pool = write_pool(tmp_path)
    told = await play(fake, pool, tmp_path / "probe.key")
    asked = fake.coordinator.asked
    assert [(one.max_tokens, one.sampler.temperature, one.verify) for one in asked] == [
        (6, 0.5, "now"),
        (6, 0.5, "now"),
        (7, 0.5, "now"),
    ]
    assert asked[1].n_in > asked[0].n_in + 6, "the second job goes on with the first talk"
    assert asked[2].sampler.grammar is not None
    assert [one.grammar for one in (asked[0].sampler, asked[1].sampler)] == [None, None]
    assert [one.outcome for one in told] == ["passed", "passed", "failed"]
    assert told[2].tickets == (third,)
    assert len(pool) == 1
    assert stat.S_IMODE((tmp_path / "pool.jsonl.used").stat().st_mode) == 0o600
    order = fake.coordinator.questions
    assert order.index((2).to_bytes(16, "big")) < 40, "no job waits for the verdict before it"


async def test_what_was_said_is_never_said_again(autojump_clock: object, tmp_path: Path) -> None:
    first = await play(FakeNetwork(), write_pool(tmp_path), tmp_path / "probe.key")
    again = write_pool(tmp_path)
    assert (len(first), len(again)) == (3, 1)
    assert len(await play(FakeNetwork(), again, tmp_path / "probe.key")) == 2
    assert len(write_pool(tmp_path)) == 0
    assert await play(FakeNetwork(), write_pool(tmp_path), tmp_path / "probe.key") == []


async def test_a_key_without_credit_is_named(autojump_clock: object, tmp_path: Path) -> None:
    class Poor(FakeCoordinator):
        def grant(self, *_: object, **__: object) -> object:  # type: ignore[override]
            raise AssayError("insufficient_credit")

    with pytest.raises(AssayError, match=r"grant credit to the probe's key [0-9a-f]{64}"):
        await play(FakeNetwork(coordinator=Poor()), write_pool(tmp_path), tmp_path / "probe.key")


def test_keys_come_and_go_as_accounts_do(tmp_path: Path) -> None:
    draw = random.Random(5)
    keys = ProbeKeys(tmp_path)
    first = keys.take(40, 0.25, draw)
    for path in first:
        path.write_text("key")
    kept = keys.take(40, 0.25, draw)
    assert len(set(kept)) == 40
    gone = set(first) - set(kept)
    assert 3 <= len(gone) <= 20
    assert {path.name for path in (tmp_path / "given-up").iterdir()} == {p.name for p in gone}
    assert len(keys.take(5, 0.0, draw)) == 5


@pytest.mark.parametrize("line", ["x", "[]", "{}", '{"turns": []}', '{"turns": [1]}'])
def test_a_pool_that_is_none_is_refused_by_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "pool"
    path.write_text(f'{{"turns": ["fine"]}}\n{line}')
    with pytest.raises(AssayError, match="line 2"):
        ProbePool(path)
