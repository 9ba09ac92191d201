"""A whole node under governance: rules arrive, are on disk before they are obeyed, and stay."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import trio

from assay_node.config import Settings
from assay_node.rules_file import RULES_FILE, keeping, load_rules
from assay_protocol.codec import encode
from assay_protocol.errors import AssayError, ProtocolError, RemoteError
from assay_protocol.messages import ModelRule, ModerationPolicy, NetworkRules
from assay_protocol.moderation import policy_digest
from assay_protocol.signing import Identity, seal
from node.app_world import PROMPT, World, open_world

AUTHOR = Identity(b"\x09" * 32)
PROMPT_TEXT = bytes(PROMPT).decode()  # the scripted model's tokens are bytes


def _rules(version: int, *, denied: bytes = b"", phrases: tuple[str, ...] = ()) -> NetworkRules:
    policy = author = b""
    moderation = bytes(32)
    if phrases:
        made = ModerationPolicy(name="p", version=1, issued_at=1, phrases=phrases)
        policy, author = seal(AUTHOR, made), AUTHOR.public_key
        moderation = policy_digest(policy)
    return NetworkRules(
        chain=5,
        registry=b"r" * 20,
        block=9,
        version=version,
        open=True,
        models=(ModelRule(model=denied, allowed=False),) if denied else (),
        moderation=moderation,
        policy=policy,
        policy_author=author,
    )


def _publish(world: World, rules: NetworkRules) -> None:
    world.coordinator.document = encode(rules)
    world.coordinator.rules = sha256(world.coordinator.document).digest()


async def _refused(world: World, node: Any, number: int) -> str:
    """What a job is refused with, once it is; RemoteError's code."""
    with trio.fail_after(20):
        while True:
            try:
                await world.run_job(world.ticket(node.register, number), node.register)
            except RemoteError as error:
                return error.code
            number += 100


async def test_rules_are_obeyed_within_a_heartbeat_and_after_a_restart(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        async with world.node() as node:
            await world.run_job(world.ticket(node.register, 1), node.register)
            _publish(world, _rules(1, denied=node.register.offers[0].model))
            assert await _refused(world, node, 2) == "model_denied"
        assert (tmp_path / RULES_FILE).read_bytes() == world.coordinator.document
        world.coordinator.rules = None  # nobody tells it any more
        async with world.node() as node:
            with pytest.raises(RemoteError, match="model_denied"):
                await world.run_job(world.ticket(node.register, 50), node.register)


async def test_a_refused_prompt_is_not_answered(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node() as node:
        _publish(world, _rules(1, phrases=(PROMPT_TEXT,)))
        assert await _refused(world, node, 2) == "prompt_refused"
        _publish(world, _rules(2, phrases=("nowhere",)))
        with trio.fail_after(20):
            for number in range(3_000, 4_000):
                try:
                    await world.run_job(world.ticket(node.register, number), node.register)
                    return
                except RemoteError:
                    await trio.sleep(0.02)


async def test_rules_that_cannot_be_written_are_not_obeyed(tmp_path: Path) -> None:
    (tmp_path / RULES_FILE).mkdir()
    async with open_world(tmp_path) as world, world.node() as node:
        _publish(world, _rules(1, denied=node.register.offers[0].model))
        await trio.sleep(0.2)  # several heartbeats
        await world.run_job(world.ticket(node.register, 1), node.register)
        (tmp_path / RULES_FILE).rmdir()
        assert await _refused(world, node, 2) == "model_denied"


async def test_what_the_chain_contradicts_is_not_written(tmp_path: Path) -> None:
    async def compare(rules: NetworkRules) -> None:
        raise ProtocolError("rules_invalid")

    keep = keeping(tmp_path, compare)
    with pytest.raises(AssayError, match="rules_invalid"):
        await keep(b"x", _rules(1))
    assert not (tmp_path / RULES_FILE).exists()


@pytest.mark.parametrize("content", [b"", b"nonsense", encode(_rules(1))[:-1], bytes(1 << 21)])
def test_a_broken_file_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RULES_FILE).write_bytes(content)
    assert load_rules(Settings(data_dir=str(tmp_path))).version == -1


def test_rules_of_another_registry_than_the_owner_names_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / RULES_FILE).write_bytes(encode(_rules(4)))
    settings = Settings(data_dir=str(tmp_path), registry=(b"r" * 20).hex())
    assert load_rules(settings).version == 4
    settings = Settings(data_dir=str(tmp_path), registry="ab" * 20)
    assert load_rules(settings).version == -1


@pytest.mark.parametrize(("key", "value"), [("registry", "0x00"), ("chain", "ftp://x")])
def test_a_chain_that_is_none_is_refused_at_the_start(key: str, value: str) -> None:
    with pytest.raises(AssayError, match="config_invalid"):
        Settings(**{key: value})
