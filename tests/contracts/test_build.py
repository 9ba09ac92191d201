import hashlib
import json
from pathlib import Path

import pytest

from assay_contracts import build
from assay_contracts.artefact import load

pytest.importorskip("py_mini_racer")
TARBALL = Path.home() / ".cache/assay" / f"solc-{build.SOLC}.tgz"


def test_the_artefact_names_the_source_it_was_built_from() -> None:
    record = json.loads((build.ARTIFACTS / "CreditLedger.json").read_text())
    source = (build.SOURCES / "CreditLedger.sol").read_bytes()
    assert record["source_sha256"] == hashlib.sha256(source).hexdigest()
    assert record["solc"] == build.SOLC


@pytest.mark.slow
@pytest.mark.interop
def test_the_source_compiles_to_the_committed_artefact(capsys: pytest.CaptureFixture[str]) -> None:
    if not TARBALL.exists():
        pytest.skip("the compiler's package is not cached")
    assert build.main(["--check"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.slow
@pytest.mark.interop
def test_a_changed_artefact_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not TARBALL.exists():
        pytest.skip("the compiler's package is not cached")
    committed = (build.ARTIFACTS / "CreditLedger.json").read_text()
    (tmp_path / "CreditLedger.json").write_text(committed.replace("6080", "6081", 1))
    monkeypatch.setattr(build, "ARTIFACTS", tmp_path)
    assert build.main(["--check"]) == 1
    assert "CreditLedger" in capsys.readouterr().out
    assert build.main([]) == 0
    assert (tmp_path / "CreditLedger.json").read_text() == committed


def test_immutables_are_not_compared() -> None:
    artefact = load("CreditLedger")
    code = bytearray(artefact.runtime_bytecode)
    (start, length), *_ = artefact.immutable_references
    code[start : start + length] = b"\x05" * length
    assert artefact.is_code(bytes(code))
    code[start + length] ^= 1
    assert not artefact.is_code(bytes(code))
    assert not artefact.is_code(b"")
    assert artefact.error_name(b"\x00\x01\x02\x03") == "reverted without a reason we know"
