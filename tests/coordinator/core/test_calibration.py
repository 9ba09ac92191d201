"""Tables of honest noise: who signed them, which entry is used, what makes them unusable."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assay_coordinator.core.calibration import BUILT_IN, MILLION, Table, Tables, gap_bin, open_table
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.messages import Calibration, PairNoise
from assay_protocol.signing import Identity, seal
from assay_protocol.sketches import gap_code, gap_of

OPERATOR, STRANGER = Identity(b"\x01" * 32), Identity(b"\x02" * 32)
MODEL = b"\x03" * 32
ANY = BUILT_IN.calibration.pairs[0]


def pair(model: bytes, executor: str, auditor: str, drift: int) -> PairNoise:
    return replace(ANY, model=model, executor=executor, auditor=auditor, drift=drift)


def table(version: int = 1, *pairs: PairNoise) -> Calibration:
    return Calibration(version=version, fitted_at=5, pairs=(*pairs, ANY))


def test_the_most_particular_entry_is_used() -> None:
    known = Table(
        table(
            1,
            pair(MODEL, "x/F", "y/F", 1),
            pair(MODEL, "x/F", "", 2),
            pair(MODEL, "", "", 3),
        )
    )
    asked = [("x/F", "y/F", 1), ("x/F", "z/F", 2), ("z/F", "y/F", 3)]
    for executor, auditor, drift in asked:
        assert known.noise(MODEL, executor, auditor).drift == drift / MILLION
    assert known.noise(b"\x09" * 32, "x/F", "y/F").drift == ANY.drift / MILLION


def test_only_an_operators_signature_makes_a_table() -> None:
    keys = [STRANGER.public_key, OPERATOR.public_key]
    blob = seal(OPERATOR, table(7))
    assert open_table(blob, keys).version == 7
    assert open_table(blob, keys).signed == blob
    for bad, among in ((blob, keys[:1]), (blob[:-1], keys), (b"", keys), (blob, [])):
        with pytest.raises(ProtocolError) as refused:
            open_table(bad, among)
        assert refused.value.code == "calibration_invalid"


def test_nobody_replaces_the_table_that_is_built_in() -> None:
    with pytest.raises(ProtocolError):
        open_table(seal(OPERATOR, table(0)), [OPERATOR.public_key])


@pytest.mark.parametrize(
    "changes",
    [{"flips": (0,) * 16}, {"flips": (MILLION,) * 16}, {"drift": 0}, {"job_sd": 0}],
)
def test_a_table_that_would_divide_by_nothing_is_refused(changes: dict[str, object]) -> None:
    broken = replace(pair(MODEL, "", "", 1), **changes)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ProtocolError) as refused:
        Table(table(1, broken))
    assert refused.value.code == "calibration_invalid"
    with pytest.raises(ProtocolError):
        Table(Calibration(version=1, fitted_at=0, pairs=(pair(MODEL, "", "", 1),)))


def test_receipts_are_judged_by_the_version_their_ticket_names() -> None:
    tables = Tables([Table(table(3)), Table(table(9))])
    assert tables.newest.version == 9
    assert [tables.of(version).version for version in (3, 9, None, 0)] == [3, 9, 0, 0]
    with pytest.raises(AssayError) as refused:
        tables.of(4)
    assert refused.value.code == "calibration_unknown"


def test_noisy_classes_are_refused_for_their_model_only() -> None:
    noisy = replace(pair(MODEL, "loud/F", "", 9), refused=True)
    known = Table(table(1, noisy))
    assert known.refuses(MODEL, "loud/F")
    assert not known.refuses(MODEL, "x/F")
    assert not known.refuses(b"\x09" * 32, "loud/F")


def test_spread_falls_with_leaves_but_not_below_that_between_jobs() -> None:
    noise = BUILT_IN.noise(b"", "", "")
    assert noise.sd(1) > noise.sd(6) > noise.sd(128) > noise.job_sd


def test_gap_bins_cover_the_codes_in_order() -> None:
    bins = [gap_bin(code) for code in range(256)]
    assert bins == sorted(bins)
    assert set(bins) == set(range(16))
    assert gap_bin(gap_code(0.0)) == 0
    assert gap_of(9 * 16) == pytest.approx(0.685, abs=0.01)
