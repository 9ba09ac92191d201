"""What is exported of recent jobs: their form, and nothing that names anybody or says anything."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from assay_coordinator.adapters.shapes import job_shapes, probe_keys
from assay_coordinator.adapters.store import Store
from assay_coordinator.cli import main
from assay_coordinator.core.records import JobRow
from assay_network.keystore import load_or_create_key
from assay_protocol.messages import Receipt, Sampler, Ticket, TokenBias
from assay_protocol.signing import Identity, seal

COORDINATOR, NODE = Identity(b"\x01" * 32), Identity(b"\x02" * 32)
SAMPLER = Sampler(
    temperature=0.8,
    top_k=40,
    top_p=0.95,
    min_p=0.05,
    logit_bias=(TokenBias(token=5, bias=1.5),),
    grammar=b"\x07" * 32,
)
TICKET = Ticket(
    ticket=bytes(16),
    client=b"c" * 32,
    node=NODE.public_key,
    model=bytes(32),
    prompt_hash=b"p" * 32,
    n_in=11,
    sampler=SAMPLER,
    max_tokens=64,
    start=0,
    nonce_commitment=bytes(32),
    seed_ticket=bytes(16),
    price_in=1,
    price_out=1,
    issued_at=5_000,
    expires_at=1,
    epoch=1,
)


def job(number: int, client: bytes, receipt: bool = True, **changes: object) -> JobRow:
    name = number.to_bytes(16, "big")
    ticket = replace(TICKET, ticket=name, seed_ticket=name, client=client)
    ticket = replace(ticket, **changes)  # type: ignore[arg-type]  # tests name real fields
    signed = Receipt(
        ticket=name,
        model=bytes(32),
        class_id="c/F",
        prompt_hash=bytes(32),
        seed_hash=bytes(32),
        output_hash=bytes(32),
        root=bytes(32),
        n_in=11,
        n_out=23,
        finish="stop",
        started_at=1,
        first_at=1,
        ended_at=1,
    )
    empty = {"bytes": b"", "str": "", "int": 0}
    known = {
        "ticket": name,
        "client": client,
        "ticket_blob": seal(COORDINATOR, ticket),
        "receipt_blob": seal(NODE, signed) if receipt else b"",
    }
    known |= {item.name: empty[str(item.type)] for item in fields(JobRow) if item.name not in known}
    return JobRow(**known)  # type: ignore[arg-type]  # by name


def test_shapes_are_of_ordinary_first_jobs_and_name_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prober = Identity(load_or_create_key(tmp_path / "keys" / "given-up" / "one.key")).public_key
    store = Store(f"sqlite:///{tmp_path / 'coordinator.db'}")
    store.commit(
        [
            job(1, b"a" * 32, issued_at=9_000),
            job(2, b"b" * 32, issued_at=3_000),
            job(3, b"a" * 32, issued_at=12_000),
            job(4, prober),
            job(5, b"b" * 32, receipt=False),
            job(6, b"b" * 32, start=9),
            job(7, b"b" * 32, seed_ticket=bytes(16)),
        ]
    )
    store.close()
    arguments = ["shapes", "--data-dir", str(tmp_path), "--probe-keys", str(tmp_path / "keys")]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    rows = [json.loads(line) for line in shown.splitlines()]
    assert [(row["account"], row["at_ms"]) for row in rows] == [(0, 3), (1, 9), (1, 12)]
    assert rows[0]["sampling"]["logit_bias"] == {"5": 1.5}
    assert (rows[0]["grammar"], rows[0]["n_out"]) == (True, 23)
    assert (b"a" * 32).hex() not in shown
    assert SAMPLER.grammar is not None
    assert SAMPLER.grammar.hex() not in shown
    everything = list(job_shapes(f"sqlite:///{tmp_path / 'coordinator.db'}"))
    assert len(everything) == 4
    assert probe_keys(tmp_path / "keys") == {prober}
