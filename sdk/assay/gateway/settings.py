"""What a gateway's owner decides, read once at start: TOML, ASSAY_GATEWAY_* variables, flags.

Each bound of the gateway that an owner may want otherwise is here, by name; times in seconds, sizes
in bytes unless named otherwise. Bounds that protect the process itself stand where they are kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from assay_network.http_listener import is_loopback, parse_address
from assay_network.tracing import check_endpoint
from assay_network.typed_settings import data_folder, load_typed
from assay_protocol.errors import AssayError
from assay_protocol.limits import OUTPUT_TOKENS_MAX
from assay_protocol.messages import VERIFY_LEVELS
from assay_protocol.urls import http_url

ENVIRONMENT_PREFIX: Final = "ASSAY_GATEWAY_"


@dataclass(frozen=True, slots=True)
class Settings:
    """One gateway's configuration.

    `open` lets anybody in who reaches a listening address beyond loopback; without it such an
    address needs `keys`.
    """

    coordinator: str = ""  # a multiaddress ending in /p2p/<peer id>
    listen: str = "127.0.0.1:8000"
    key: str = ""  # file of the account that pays; empty: the user's client key
    keys: str = ""  # file of API keys; empty: none is asked for
    open: bool = False
    data_dir: str = ""  # receipts and the keys' spending; empty: the platform's folder
    cors_origins: tuple[str, ...] = ()  # pages that may call from a browser; empty: none
    body_bytes: int = 12 << 20  # a picture of 8 MiB as a data URL, and a chat
    body_seconds: int = 30  # for a whole body to arrive
    requests: int = 256  # answered at once; more get 503
    choices: int = 8  # the most `n` may be
    max_tokens: int = 512  # of an answer, where the caller does not say
    verify: str = "sample"  # where the caller does not say
    keep_alive: int = 15  # a comment on a silent stream
    answer_seconds: int = 900  # for a whole answer
    receipts: int = 1_024  # the newest answers' receipts to hand out
    chain: str = ""  # JSON-RPC URL that epochs' roots are read from; empty: none is
    otlp: str = ""  # URL of a collector of traces; empty: none are made
    routes: str = ""  # file of models' other names, fallbacks and upstreams; empty: none
    responses: int = 0  # the newest of /v1/responses to keep, in memory; 0: none

    def __post_init__(self) -> None:
        _require(bool(self.coordinator), "give --coordinator or set ASSAY_COORDINATOR")
        for name, least, most in _RANGES:
            value = getattr(self, name)
            _require(least <= value <= most, f"{name} must be in [{least}, {most}]")
        _require(self.verify in VERIFY_LEVELS, f"verify must be one of {', '.join(VERIFY_LEVELS)}")
        right = not self.chain or http_url(self.chain) is not None
        _require(right, "chain must be an http or https URL")
        if self.otlp:
            check_endpoint("otlp", self.otlp)
        host, _ = self.address
        inside = is_loopback(host)
        _require(
            inside or bool(self.keys) or self.open,
            f"{host} can be reached by others: give --keys FILE, or --open to let anybody in",
        )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on; port 0 takes any free one."""
        return parse_address("listen", self.listen)

    @property
    def directory(self) -> Path:
        """Where receipts and spending are kept."""
        return data_folder(self.data_dir, "gateway")


_RANGES: Final = (
    ("body_bytes", 1_024, 64 << 20),
    ("body_seconds", 1, 600),
    ("requests", 1, 16_384),
    ("choices", 1, 64),
    ("max_tokens", 1, OUTPUT_TOKENS_MAX),
    ("keep_alive", 1, 600),
    ("answer_seconds", 1, 3_600),
    ("receipts", 1, 1 << 20),
    ("responses", 0, 1 << 16),
)


def load_settings(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> Settings:
    """The settings of one start; later sources win. Raises AssayError("config_invalid")."""
    return load_typed(Settings, ENVIRONMENT_PREFIX, file, environment, flags)


def load_from_process(file: str | None, flags: Mapping[str, Any]) -> Settings:
    """`load_settings` with this process's environment; ASSAY_COORDINATOR counts, too."""
    name = file or os.environ.get(ENVIRONMENT_PREFIX + "CONFIG")
    environment = dict(os.environ)
    if shared := environment.get("ASSAY_COORDINATOR"):
        environment.setdefault(ENVIRONMENT_PREFIX + "COORDINATOR", shared)
    return load_settings(Path(name) if name else None, environment, flags)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise AssayError("config_invalid", what)
