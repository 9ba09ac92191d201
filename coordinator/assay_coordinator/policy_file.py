"""The operator's policy file: TOML with the names of core.policy.Policy, and no others."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from assay_coordinator.core.policy import Policy
from assay_protocol.errors import AssayError
from assay_protocol.limits import ROUND_RECEIPTS_MAX

_NOT_IN_FILES = frozenset({"operators", "links"})  # links: a change would be a fork
_KEYS: Final = frozenset({"treasury"})  # public keys, as hex
_MOST: Final = {
    "audit_bps_min": 10_000,
    "fee_bps": 10_000,
    "gain_bps": 10_000,
    "audit_pay_bps": 10_000,
    "probation_audits": 1 << 31,
    "round_receipts": ROUND_RECEIPTS_MAX,
}


def policy_defaults() -> dict[str, int]:
    """The numbers a policy file may hold, by name, as they are without one."""
    defaults = {item.name: item.default for item in fields(Policy)}
    return {
        name: value
        for name, value in defaults.items()
        if name not in _NOT_IN_FILES and isinstance(value, int)
    }


def read_policy(path: Path | None, **overrides: Any) -> Policy:
    """The policy in `path` with `overrides` on top (None is no override).

    Raises AssayError("config_invalid") naming the key and the nearest known one.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise AssayError("config_invalid", f"{path}: {error}") from error
    known = [item.name for item in fields(Policy) if item.name not in _NOT_IN_FILES]
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise AssayError("config_invalid", f"{path}: unknown key {key}{hint}")
        if key in _KEYS:
            values[key] = _key(path, key, value)
            continue
        if type(value) is not int or value < 0:
            raise AssayError("config_invalid", f"{path}: {key} must be a whole number, 0 or more")
        if value > _MOST.get(key, value):
            raise AssayError("config_invalid", f"{path}: {key} is at most {_MOST[key]}")
    values.update({key: value for key, value in overrides.items() if value is not None})
    return Policy(**values)


def _key(path: Path | None, name: str, value: object) -> bytes:
    try:
        key = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        key = b""
    if len(key) != 32:
        raise AssayError("config_invalid", f"{path}: {name} must be a key of 64 hex digits")
    return key
