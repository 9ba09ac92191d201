from __future__ import annotations
from pathlib import Path
import pytest, trio
from assay import AsyncClient
from assay.verdicts import check_record
from assay.direct import coordinator_key_of
from assay_protocol.errors import AssayError
from assay_protocol.messages import Ticket
from assay_protocol.signing import peek
from end_to_end.scripted_network import CLIENT, PROMPT, start_paced
from end_to_end import scripted_network as s
from assay_simnet.drivers.real import real_network
from end_to_end.places import free_port, write_card

async def test_it(tmp_path: Path) -> None:
    async with real_network(tmp_path) as network:
        network.address = f"/ip4/127.0.0.1/tcp/{free_port()}/p2p/"
        await network.start_coordinator("heartbeat_us = 500000\n", write_card(network.folder), s.FAUCET)
        for name in ("node-a","node-b","node-c"):
            await start_paced(network, name, 0.002)
        async with AsyncClient.connect(network.address, seed=CLIENT.seed) as client:
            with trio.fail_after(60):
                result = await client.complete(PROMPT, max_tokens=40)
                ticket = peek(Ticket, result.receipts[0].ticket).ticket
                while True:
                    try:
                        record = await client.verdict_record(ticket)
                        break
                    except AssayError as e:
                        assert e.code == "unknown_ticket", e
                        await trio.sleep(0.3)
        v = check_record(record, coordinator_key_of(network.address))
        for st in v.steps: print(st)
        assert v.ok, v
