"""API keys: who may ask, and how much. The file holds a key's sha256, never the key.

A key is 256 random bits, so a plain hash cannot be searched, and looking it up by its hash tells
nothing by its time. One JSON object a line; the file is private and replaced as a whole. A running
gateway reads it again when it changes: a revoked key is refused from then on.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from assay_network.durable import write_durably
from assay_network.private_files import read_private
from assay_protocol.errors import AssayError

KEYS_MAX: Final = 10_000
FILE_BYTES_MAX: Final = 4 << 20
KEY_PREFIX: Final = "assay-"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_BOUND_MAX: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One caller. `budget` is in micro-credits over the key's life; 0 means no bound."""

    name: str
    sha256: str
    budget: int = 0
    requests_per_minute: int = 0
    at_once: int = 0
    owner: bool = False  # sees how every key's requests were routed
    # By the upstream's name, in micro-units of its currency; where there is none, its `key_budget`.
    upstream_budgets: Mapping[str, int] = field(default_factory=dict)


class ApiKeys:
    """The keys of `path`, by what they hash to. Where `upstreams` are named, budgets at others are
    refused: a name that is misspelt must not be no bound."""

    def __init__(self, path: Path, upstreams: Collection[str] = ()) -> None:
        self._path, self._upstreams = path, frozenset(upstreams)
        self._seen: tuple[int, int, int] | None = None
        self._by_digest: dict[str, ApiKey] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if it changed. Raises AssayError; the keys then stay as they were."""
        seen = _stamp(self._path)
        if seen != self._seen:
            keys = read_keys(self._path)
            for key in keys if self._upstreams else ():
                self._check_upstreams(key)
            self._by_digest = {key.sha256: key for key in keys}
            self._seen = seen

    def find(self, given: str) -> ApiKey | None:
        return self._by_digest.get(digest_of(given))

    def _check_upstreams(self, key: ApiKey) -> None:
        for name in key.upstream_budgets:
            near = difflib.get_close_matches(name, self._upstreams, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            what = f"{self._path}: {key.name} has a budget at {name!r}, which is no upstream{hint}"
            _require(name in self._upstreams, what)


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """All keys of the file; AssayError "config_invalid" with its line, or "key_permissions"."""
    data = read_private(path, FILE_BYTES_MAX)
    keys: list[ApiKey] = []
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            keys.append(_parse(line, f"{path}:{number}"))
    _require(len(keys) <= KEYS_MAX, f"{path} has more than {KEYS_MAX} keys")
    twice = [name for name, count in Counter(key.name for key in keys).items() if count > 1]
    _require(not twice, f"{path}: {', '.join(twice)} is there twice")
    return tuple(keys)


def add_key(
    path: Path,
    name: str,
    *,
    owner: bool = False,
    upstream_budgets: Mapping[str, int] = {},
    **bounds: int,
) -> str:
    """Append a new key and return it: it is shown once, and cannot be read again."""
    kept = read_keys(path) if path.exists() else ()
    _require(bool(_NAME.fullmatch(name)), f"not a name of letters, digits, '._-': {name!r}")
    _require(all(key.name != name for key in kept), f"there is a key {name!r} already")
    made = KEY_PREFIX + secrets.token_urlsafe(32)
    told = {"name": name, "sha256": digest_of(made), "owner": owner, **bounds}
    told["upstream_budgets"] = dict(upstream_budgets)
    _write(path, (*kept, _checked(told, "key")))
    return made


def revoke_key(path: Path, name: str) -> None:
    """Take the key out of the file. Raises AssayError("config_invalid") if there is none."""
    kept = read_keys(path)
    left = tuple(key for key in kept if key.name != name)
    _require(len(left) < len(kept), f"{path} has no key {name!r}")
    _write(path, left)


def _write(path: Path, keys: Iterable[ApiKey]) -> None:
    text = "".join(json.dumps(asdict(key)) + "\n" for key in keys)
    mask = os.umask(0o077)  # the draft is private from its first byte
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, text.encode())
    except OSError as error:
        raise AssayError("storage_failed", f"{path}: {error.strerror}") from error
    finally:
        os.umask(mask)


def _parse(line: bytes, where: str) -> ApiKey:
    try:
        value = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise AssayError("config_invalid", f"{where}: not JSON") from error
    _require(isinstance(value, dict), f"{where}: not an object")
    return _checked(value, where)


def _checked(value: Mapping[str, Any], where: str) -> ApiKey:
    known = {field.name for field in fields(ApiKey)}
    unknown = sorted(set(value) - known)
    _require(
        not unknown, f"{where}: unknown {', '.join(unknown)}; known: {', '.join(sorted(known))}"
    )
    name, digest = value.get("name"), value.get("sha256")
    _require(isinstance(name, str) and bool(_NAME.fullmatch(name)), f"{where}: a name is missing")
    right = isinstance(digest, str) and bool(_DIGEST.fullmatch(digest))
    _require(right, f"{where}: sha256 must be 64 hexadecimal digits")
    for bound in ("budget", "requests_per_minute", "at_once"):
        _require(_is_bound(value.get(bound, 0)), f"{where}: {bound} must be a whole number")
    budgets = value.get("upstream_budgets", {})
    _require(isinstance(budgets, dict), f"{where}: upstream_budgets must be an object")
    for upstream, given in budgets.items():
        named = bool(_NAME.fullmatch(upstream))
        _require(named, f"{where}: upstream_budgets: not a name of an upstream: {upstream!r}")
        what = f"{where}: the budget at {upstream} must be a whole number"
        _require(_is_bound(given), what)
    _require(type(value.get("owner", False)) is bool, f"{where}: owner must be true or false")
    return ApiKey(**value)


def _is_bound(value: Any) -> bool:
    return type(value) is int and 0 <= value < _BOUND_MAX


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise AssayError("config_invalid", what)
