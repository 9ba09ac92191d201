"""A verdict of a real network: its auditors signed, and anybody can check all it rests on."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from assay import AsyncClient, check_record, cli
from assay.direct import coordinator_key_of
from assay_protocol.codec import encode
from assay_protocol.messages import Ticket
from assay_protocol.signing import peek
from end_to_end.scripted_network import CLIENT, PROMPT, UNHURRIED, scripted_network, start_paced

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]
NODES = ("node-a", "node-b", "node-c")
TOKENS = 40


async def test_the_record_of_an_audit_holds_and_names_who_signed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with scripted_network(tmp_path) as network:
        for name in NODES:
            await start_paced(network, name, 0.002)
        async with AsyncClient.connect(
            network.address, seed=CLIENT.seed, limits=UNHURRIED
        ) as client:
            with trio.fail_after(180):
                result = await client.complete(PROMPT, max_tokens=TOKENS, verify="now")
                ticket = peek(Ticket, result.receipts[0].ticket)
                record = await client.verdict_record(ticket.ticket)
    assert result.verdict is not None
    assert result.verdict.auditors, "an auditor signed, not only the coordinator"
    assert set(result.verdict.auditors) <= {network.key_of(name) for name in NODES} - {ticket.node}
    key = coordinator_key_of(network.address)
    checked = check_record(record, key)
    assert checked.ok, checked
    opened = next(step for step in checked.steps if step.name == "opened leaves")
    assert opened.ok is True
    saved = tmp_path / "verdict"
    saved.write_bytes(encode(record))
    show = ["audit", "show", ticket.ticket.hex(), "--file", str(saved)]
    assert cli.main([*show, "--coordinator-key", key.hex()]) == 0
    shown = capsys.readouterr().out
    assert "0 of " in shown
    assert all(auditor.hex()[:16] in shown for auditor in result.verdict.auditors)
