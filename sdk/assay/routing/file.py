"""The file of routes: TOML, read once at start, every key checked.

    hedge_permille = 50

    [upstream.closed]
    url = "https://api.example.com/v1"
    key_env = "CLOSED_KEY"
    keys = ["alice"]

    [route."gpt-4o-mini"]
    network = ["smollm2-135m-instruct"]
    upstream = "closed"
    upstream_when = ["no_node", "slow"]
    first_token_ms = 4000

A secret never stands in it: the file names a variable or a private file that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from assay.routing.core.plans import CASES, TARGETS_MAX, Plan, Routes, Terms
from assay_network.http_listener import is_loopback
from assay_network.private_files import read_private
from assay_network.typed_settings import read_toml, typed_table
from assay_protocol.errors import AssayError
from assay_protocol.urls import http_url

PLANS_MAX: Final = 256
UPSTREAMS_MAX: Final = 16
SECRET_BYTES_MAX: Final = 4_096
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MS_MAX: Final = 3_600_000
_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "retry_permille": (0, 1_000),
    "hedge_permille": (0, 1_000),
    "credit_price": (0, 1 << 53),
    "seed": (0, 1 << 63),
    "price_in": (0, 1 << 40),
    "price_out": (0, 1 << 40),
    "budget": (0, 1 << 53),
    "key_budget": (0, 1 << 53),
    "max_tokens": (1, 1 << 20),
    "retries": (0, 8),
    "first_token_ms": (0, _MS_MAX),
    "stall_ms": (1, _MS_MAX),
    "hedge_after_ms": (0, _MS_MAX),
}


def read_routes(file: Path) -> Routes:
    """What the file says. Raises AssayError("config_invalid") with the place."""
    told = read_toml(file)
    plans, upstreams = told.pop("route", {}), told.pop("upstream", {})
    where = str(file)
    _require(isinstance(plans, dict), where, "route is a table of tables")
    _require(isinstance(upstreams, dict), where, "upstream is a table of tables")
    _require(len(plans) <= PLANS_MAX, where, f"at most {PLANS_MAX} routes")
    _require(len(upstreams) <= UPSTREAMS_MAX, where, f"at most {UPSTREAMS_MAX} upstreams")
    known = {name: _terms(one, f"{where}: upstream.{name}") for name, one in upstreams.items()}
    for name in known:
        _require(bool(_NAME.fullmatch(name)), where, f"not a name of an upstream: {name!r}")
    found = {name: _plan(one, known, f"{where}: route.{name}") for name, one in plans.items()}
    whole = _values(Routes, told, where)
    return Routes(plans=found, upstreams=known, **whole)


def secret_of(terms: Terms, environment: Mapping[str, str]) -> str:
    """What opens an upstream; "" if it asks for nothing. Raises AssayError "config_invalid", or
    "key_permissions" if others can read the file."""
    if terms.key_env:
        secret = environment.get(terms.key_env, "")
        _require(bool(secret), terms.url, f"the variable {terms.key_env} is not set")
    elif terms.key_file:
        secret = _read_secret(Path(terms.key_file).expanduser())
    else:
        return ""
    _require(secret.isascii() and secret.isprintable(), terms.url, "its key is not one of ASCII")
    return secret


def _terms(table: Any, where: str) -> Terms:
    terms = Terms(**_values(Terms, table, where))
    parts = http_url(terms.url)
    if parts is None:
        raise AssayError("config_invalid", f"{where}: url is missing")
    _require(not parts.username and not parts.query, where, "url holds no key: see key_env")
    sealed = parts.scheme == "https" or is_loopback(str(parts.hostname))
    _require(sealed, where, "prompts and the key would go in the clear: the url must be https")
    _require(not (terms.key_env and terms.key_file), where, "either key_env or key_file")
    _require(terms.first_token_ms > 0, where, "first_token_ms must be above 0")
    return terms


def _plan(table: Any, upstreams: Mapping[str, Terms], where: str) -> Plan:
    plan = Plan(**_values(Plan, table, where))
    _require(len(plan.network) <= TARGETS_MAX, where, f"at most {TARGETS_MAX} models")
    _require(bool(plan.network or plan.upstream), where, "it names nobody to ask")
    _require(all(plan.network), where, "a model without a name")
    for case in plan.upstream_when:
        _require(case in CASES, where, f"upstream_when is of {', '.join(CASES)}; not {case!r}")
    if plan.upstream:
        _require(plan.upstream in upstreams, where, f"there is no upstream {plan.upstream!r}")
        _require(bool(plan.upstream_when), where, "upstream_when says when a prompt may leave")
    else:
        _require(not plan.upstream_when, where, "upstream_when without an upstream")
    return plan


def _values(kind: type, table: Any, where: str) -> dict[str, Any]:
    _require(isinstance(table, dict), where, "not a table")
    values = typed_table(kind, table, where)
    for name, value in values.items():
        if name in _RANGES:
            least, most = _RANGES[name]
            _require(least <= value <= most, where, f"{name} must be in [{least}, {most}]")
    return values


def _read_secret(path: Path) -> str:
    text = read_private(path, SECRET_BYTES_MAX).decode("ascii", "replace").strip()
    _require(bool(text), str(path), "not a file of one key")
    return text


def _require(condition: bool, where: str, what: str) -> None:
    if not condition:
        raise AssayError("config_invalid", f"{where}: {what}")
