"""Jobs that ask about their prompts, at the coordinator: who gets them, and what is booked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from assay_protocol import messages as m
from assay_protocol.limits import PROMPT_LOGPROBS_BYTES_MAX
from assay_protocol.signing import peek, seal
from coordinator.core.coordinator_world import World, identity, node, submission

CLIENT = identity(500)
ASKS = replace(submission(bytes(32)).sampler, prompt_logprobs=1)


def worlds(*offers: bool | None) -> tuple[World, list[bytes]]:
    """A world with a node for each offer's prompt_logprobs."""
    world = World()
    world.grant(CLIENT.public_key)
    keys = []
    for index, tells in enumerate(offers):
        made = node(index)
        world.join(made, prompt_logprobs=tells)
        keys.append(made.key)
    return world, keys


def test_they_go_to_nodes_that_tell_and_other_jobs_to_all() -> None:
    world, (silent, telling) = worlds(None, True)
    for _ in range(6):
        held: Any = world.ask(CLIENT, sampler=ASKS)
        assert held.ticket.node == telling
        assert held.ticket.sampler.prompt_logprobs == 1
    found = {world.ask(CLIENT).ticket.node for _ in range(20)}  # type: ignore[union-attr]  # granted
    assert silent in found


@pytest.mark.parametrize("offer", [None, False])
def test_where_no_node_tells_the_client_is_told_so(offer: bool | None) -> None:
    world, _ = worlds(offer)
    refused = world.ask(CLIENT, sampler=ASKS)
    assert isinstance(refused, m.Error)
    assert refused.code == "task_refused"


def test_more_than_a_prompt_may_have_is_refused() -> None:
    world, _ = worlds(True)
    many = replace(ASKS, prompt_logprobs=20)
    too_long = PROMPT_LOGPROBS_BYTES_MAX // (8 * 21) + 1
    refused = world.ask(CLIENT, sampler=many, n_in=too_long)
    assert isinstance(refused, m.Error)
    assert refused.code == "sampler_refused"
    assert not isinstance(world.ask(CLIENT, sampler=ASKS, n_in=100), m.Error)


def test_a_receipt_must_be_signed_for_what_was_told() -> None:
    world, _ = worlds(True)
    held: Any = world.ask(CLIENT, sampler=ASKS)
    world.serve(held)
    honest = world.hand_in(held)
    assert isinstance(honest, m.ReceiptBooked), honest
    silent: Any = world.ask(CLIENT, sampler=ASKS)
    world.serve(silent)
    forged = replace(peek(m.Receipt, silent.receipt), prompt_logprobs=None)
    silent.receipt = seal(world.nodes[silent.ticket.node].me, forged)
    refused = world.hand_in(silent)
    assert isinstance(refused, m.Error)
    assert refused.code == "receipt_mismatch"
