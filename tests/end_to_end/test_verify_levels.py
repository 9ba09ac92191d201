"""What clients ask to be verified, through a real coordinator and real nodes of three operators."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from assay import AsyncClient, Delta, Verdict, verify_answer
from assay.standing import standing_of
from assay_protocol.errors import AssayError
from assay_protocol.messages import Ticket
from assay_protocol.signing import peek
from end_to_end.scripted_network import CLIENT, PROMPT, UNHURRIED, scripted_network, start_paced

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]
NODES = ("node-a", "node-b", "node-c")
TOKENS = 40


async def test_now_waits_for_an_audit_and_quorum_for_a_second_node(tmp_path: Path) -> None:
    async with scripted_network(tmp_path) as network:
        for name in NODES:
            await start_paced(network, name, 0.002)
        async with AsyncClient.connect(
            network.address, seed=CLIENT.seed, limits=UNHURRIED
        ) as client:
            with trio.fail_after(180):
                await _now(client)
                await _quorum(client)


async def _now(client: AsyncClient) -> None:
    async with client.stream_complete(PROMPT, max_tokens=TOKENS, verify="now") as stream:
        *deltas, last = [event async for event in stream]
    assert all(isinstance(event, Delta) for event in deltas)
    assert isinstance(last, Verdict)
    assert (last.outcome, stream.result.final) == ("passed", True)
    assert verify_answer(stream.result.receipts).ok
    standing = standing_of(stream.result.receipts[0])
    assert standing.known
    assert standing.bad_share_most is None, "nothing is claimed of a node on its first day"


async def _quorum(client: AsyncClient) -> None:
    result = await client.complete(PROMPT, max_tokens=TOKENS, verify="quorum")
    assert (len(result.tokens), result.final) == (TOKENS, True)
    one, other = (peek(Ticket, records[0].ticket) for records in (result.receipts, result.twins))
    assert one.node != other.node
    assert one.seed_ticket == other.seed_ticket == one.ticket
    assert verify_answer(result.receipts).ok
    assert verify_answer(result.twins).ok


async def test_a_quorum_is_refused_where_there_is_one_operator(tmp_path: Path) -> None:
    async with scripted_network(tmp_path) as network:
        await start_paced(network, NODES[0], 0.0)
        async with AsyncClient.connect(
            network.address, seed=CLIENT.seed, limits=UNHURRIED
        ) as client:
            with trio.fail_after(180), pytest.raises(AssayError, match="verify_refused"):
                await client.complete(PROMPT, max_tokens=TOKENS, verify="quorum")
