"""`coordinator moderation`: a list becomes a signed policy, and every fault has a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay_coordinator.cli import main
from assay_coordinator.moderation_command import read_phrases, read_policy_file
from assay_network.keystore import load_or_create_key
from assay_protocol.errors import AssayError
from assay_protocol.moderation import policy_digest, unpack_policy
from assay_protocol.signing import Identity


def _sign(folder: Path, text: str, *more: str) -> int:
    (folder / "phrases.txt").write_text(text)
    load_or_create_key(folder / "author.key")
    words = ["moderation", "sign", str(folder / "phrases.txt"), "--key", str(folder / "author.key")]
    return main([*words, "--name", "first", "--version", "3", "-o", str(folder / "p"), *more])


def test_a_list_is_signed_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _sign(tmp_path, "how to\n\n  HOW   to\nother\n", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    author, blob, policy = unpack_policy((tmp_path / "p").read_bytes())
    assert policy.phrases == ("how to", "other")  # once, whatever its form
    assert told["sha256"] == policy_digest(blob).hex()
    assert told["author"] == author.hex()
    assert (told["phrases"], told["version"]) == (2, 3)
    key = Identity(load_or_create_key(tmp_path / "author.key")).public_key
    assert read_policy_file(tmp_path / "p").author == key
    assert main(["moderation", "show", str(tmp_path / "p"), "--list"]) == 0
    shown = capsys.readouterr().out
    assert "'how to'" in shown
    assert policy_digest(blob).hex() in shown


@pytest.mark.parametrize(
    ("damage", "code"), [(b"", "rules_invalid"), (b"\x00" * 200, "rules_invalid")]
)
def test_another_file_is_no_policy(
    tmp_path: Path, damage: bytes, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").write_bytes(damage)
    assert main(["moderation", "show", str(tmp_path / "p")]) == 1
    assert code in capsys.readouterr().err
    with pytest.raises(AssayError, match=code):
        read_policy_file(tmp_path / "p")
    with pytest.raises(AssayError, match=code):
        read_policy_file(tmp_path / "absent")


@pytest.mark.parametrize("text", ["x" * 257, "\n".join(str(n) for n in range(1_025))])
def test_a_list_beyond_its_bounds_is_refused(text: str) -> None:
    with pytest.raises(AssayError, match="config_invalid"):
        read_phrases(text)


@pytest.mark.parametrize("version", ["0", "-1", str(1 << 40)])
def test_a_version_beyond_its_bounds_is_refused(tmp_path: Path, version: str) -> None:
    assert _sign(tmp_path, "x", "--version", version) == 1
    assert not (tmp_path / "p").exists()
