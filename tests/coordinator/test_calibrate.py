"""`coordinator calibrate`: from the tables of a running network to a signed file and back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from assay_coordinator.adapters.draws import job_verdict
from assay_coordinator.adapters.store import Store
from assay_coordinator.adapters.verdicts import traces, verdict_record
from assay_coordinator.app import read_tables
from assay_coordinator.cli import main
from assay_coordinator.core.records import JobRow, VerdictRow
from assay_network.keystore import load_or_create_key
from assay_protocol.codec import decode_as
from assay_protocol.errors import AssayError
from assay_protocol.messages import AuditStatement, VerdictRecord
from assay_protocol.signing import Identity, open_signed
from coordinator.core.coordinator_world import MODEL, POLICY, World, identity, node

CLIENT, JOBS = identity(50), 60


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A database of audited jobs of honest nodes."""
    folder = tmp_path_factory.mktemp("calibrate")
    a, b, c = node(10), node(11), node(12)
    world = World(replace(POLICY, probation_audits=1_000), [a, b, c])
    world.grant(CLIENT.public_key)
    for _ in range(JOBS):
        world.run_job(CLIENT, only=(a.key,))
    url = f"sqlite:///{folder / 'coordinator.db'}"
    store = Store(url)
    store.commit([*world.store.rows(JobRow), *world.store.rows(VerdictRow)])
    store.close()
    return folder, url, (a, b, c)


def _calibrate(network: Any, *more: str, trusted: tuple[int, ...] = (0, 1, 2)) -> int:
    folder, _, nodes = network
    keys = [word for i in trusted for word in ("--trusted", nodes[i].key.hex())]
    operator, output = str(folder / "operator.key"), str(folder / "noise.table")
    where = ["--data-dir", str(folder), "--key", operator, "-o", output]
    return main(["calibrate", *where, *keys, "--version", "3", *more])


def test_a_table_is_fitted_signed_and_read_again(network: Any, capsys: Any) -> None:
    folder, url, nodes = network
    store = Store(url)
    seen = list(traces(store, {one.key for one in nodes}))
    assert len(list(traces(store, {nodes[0].key}))) == 0, "an auditor must be trusted, too"
    store.close()
    assert len(seen) == JOBS
    assert _calibrate(network, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["version"], told["audits"]) == (3, len(seen))
    operator = Identity(load_or_create_key(folder / "operator.key")).public_key
    assert told["signer"] == operator.hex()
    tables = read_tables([folder / "noise.table"], [operator])
    assert tables.newest.version == 3
    assert tables.newest.noise(MODEL, "pseudo", "pseudo").drift < 0.2
    with pytest.raises(AssayError) as refused:
        read_tables([folder / "noise.table"], [])
    assert refused.value.code == "calibration_invalid"


def test_too_few_audits_make_no_table(network: Any, capsys: Any) -> None:
    assert _calibrate(network, trusted=(0,)) == 1
    assert "calibration_invalid" in capsys.readouterr().err


def test_a_verdict_is_found_by_its_ticket(network: Any) -> None:
    _, url, _ = network
    store = Store(url)
    rows: list[VerdictRow] = store.rows(VerdictRow)
    record = decode_as(VerdictRecord, verdict_record(store, rows[0].ticket))
    assert record.outcome == rows[0].outcome
    with pytest.raises(AssayError) as refused:
        verdict_record(store, bytes(16))
    assert refused.value.code == "unknown_ticket"
    store.close()


def test_a_job_s_verdict_names_who_says_so(network: Any) -> None:
    _, url, nodes = network
    store = Store(url)
    rows: list[VerdictRow] = store.rows(VerdictRow)
    told = job_verdict(store, CLIENT.public_key, rows[0].ticket)
    assert (told.state, told.outcome) == ("released", "passed")
    assert told.auditors is not None
    for auditor, statement in zip(told.auditors, told.statements, strict=True):
        assert auditor in {one.key for one in nodes}
        assert open_signed(AuditStatement, statement, auditor).ticket == rows[0].ticket
    with pytest.raises(AssayError):
        job_verdict(store, nodes[0].key, rows[0].ticket)
    store.close()
