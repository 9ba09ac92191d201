"""The policy file: known names, whole numbers, and bounds where the protocol has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay_coordinator.core.policy import Policy
from assay_coordinator.policy_file import read_policy
from assay_protocol.errors import AssayError


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("round_us = 5\naudit_bps_min = 10000\n")
    assert read_policy(file, faucet=7) == Policy(round_us=5, audit_bps_min=10_000, faucet=7)
    assert read_policy(None, faucet=None) == Policy()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("round_uss = 5", "did you mean round_us"),
        ("links = 5", "unknown key"),
        ("round_us = -1", "whole number"),
        ("round_us = true", "whole number"),
        ("audit_bps_min = 10001", "at most 10000"),
        ("round_receipts = 4097", "at most 4096"),
        ("round_us = ", "policy.toml"),
        ("treasury = 5", "a key of 64 hex digits"),
        ('treasury = "0a0b"', "a key of 64 hex digits"),
        ('treasury = "x"', "a key of 64 hex digits"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(line)
    with pytest.raises(AssayError) as caught:
        read_policy(file)
    assert caught.value.code == "config_invalid"
    assert words in caught.value.message


def test_the_treasury_s_account_is_a_key(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(f'treasury = "{"0a" * 32}"\ntreasury_reserve = 7\n')
    assert read_policy(file) == Policy(treasury=b"\x0a" * 32, treasury_reserve=7)
