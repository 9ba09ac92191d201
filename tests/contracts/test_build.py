import hashlib
import json
from pathlib import Path

import pytest

from assay_contracts.artefact import CONTRACTS, load
from assay_contracts.deploy import build, npm_packages
from assay_contracts.deploy.compiler import closure, compile_sources, imports
from assay_contracts.deploy.npm_packages import OPENZEPPELIN, PACKAGES, SOLC, Package

pytest.importorskip("py_mini_racer")
CACHED = all(package.path.exists() for package in PACKAGES)


@pytest.fixture(scope="module")
def compiled() -> dict[str, str]:
    """What the sources compile to, once."""
    if not CACHED:
        pytest.skip("the compiler's packages are not cached: make setup")
    return build.build()


@pytest.mark.parametrize("contract", CONTRACTS)
def test_an_artefact_names_the_sources_it_was_built_from(contract: str) -> None:
    record = json.loads((build.ARTIFACTS / f"{contract}.json").read_text())
    for name, digest in record["sources_sha256"].items():
        assert digest == hashlib.sha256((build.SOURCES / name).read_bytes()).hexdigest()
    assert (record["solc"], record["openzeppelin"]) == (SOLC.version, OPENZEPPELIN.version)


def test_no_artefact_is_left_of_a_contract_that_is_gone() -> None:
    assert {path.stem for path in build.ARTIFACTS.glob("*.json")} == set(CONTRACTS)


@pytest.mark.slow
@pytest.mark.interop
def test_the_source_compiles_to_the_committed_artefact(
    compiled: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "build", lambda: compiled)
    assert build.main(["--check"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.slow
@pytest.mark.interop
def test_a_changed_artefact_is_reported(
    compiled: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(build, "build", lambda: compiled)
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
    for start, length in artefact.immutables["poster"]:
        code[start : start + length] = (5).to_bytes(length)
    assert artefact.is_code(bytes(code))
    assert artefact.immutable(bytes(code), "poster") == 5
    code[start + length] ^= 1
    assert not artefact.is_code(bytes(code))
    assert not artefact.is_code(b"")
    assert artefact.error_name(b"\x00\x01\x02\x03") == "reverted without a reason we know"


def test_imports_are_found_and_resolved() -> None:
    text = """import "./A.sol";
    import {B, C} from "../x/B.sol";
    import {
        D
    } from "@openzeppelin/contracts/D.sol"; // import "no.sol";
    """
    assert imports("y/z/S.sol", text) == {"y/z/A.sol", "y/x/B.sol", "@openzeppelin/contracts/D.sol"}
    assert closure("a", {"a": 'import "b";', "b": 'import "a";', "c": ""}) == {"a", "b"}


def test_a_tarball_that_is_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path))
    package = Package("@a/b", "1.0.0", "00" * 32)
    package.path.write_bytes(b"other")
    assert package.path == tmp_path / "a-b-1.0.0.tgz"
    with pytest.raises(RuntimeError, match=r"is not @a/b 1\.0\.0"):
        package.fetch()


def test_without_npm_what_is_absent_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="npm is not installed"):
        SOLC.fetch()
    assert npm_packages.main() == 0
    assert "contracts cannot be rebuilt: npm is not installed" in capsys.readouterr().err


@pytest.mark.interop
@pytest.mark.slow
def test_the_compiler_s_words_are_told() -> None:
    if not CACHED:
        pytest.skip("the compiler's packages are not cached: make setup")
    with pytest.raises(RuntimeError, match="Identifier not found"):
        compile_sources({"A.sol": "pragma solidity 0.8.37; contract A { B b; }"})
