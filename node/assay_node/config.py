"""What the owner decides, read once at start: TOML file, then ASSAY_NODE_* variables, then flags.

Every key exists under the same name in all three (`data_dir`, ASSAY_NODE_DATA_DIR, --data-dir). A
key nobody knows is refused with the nearest known one: a misspelt limit must not be ignored.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from assay_network.http_guard import Guard, guard_of
from assay_network.http_listener import parse_address
from assay_network.tracing import check_endpoint
from assay_network.typed_settings import data_folder, load_typed
from assay_node.core.limits import WINDOWS_MAX, parse_window
from assay_node.hardware import spare_cores
from assay_protocol.errors import AssayError
from assay_protocol.limits import MODELS_PER_NODE_MAX
from assay_protocol.regions import is_region
from assay_protocol.urls import http_url

ENVIRONMENT_PREFIX: Final = "ASSAY_NODE_"
ENGINES: Final = ("llama", "scripted", "openai")
PROFILES: Final = ("exact", "exact-native", "fast")
FITS: Final = ("shrink", "refuse", "off")


@dataclass(frozen=True, slots=True)
class Settings:
    """One node's configuration. Times in seconds, sizes in tokens unless named otherwise."""

    coordinator: str = ""  # KEY_HEX@MULTIADDR, or a multiaddr ending in /p2p/<peer id>
    model: str = ""  # path of the GGUF file; empty: looked for in <data_dir>/models
    card: str = ""  # path of the model card
    projector: str = ""  # GGUF file ("mmproj") that reads images; empty: looked for like `model`
    fetch_card: bool = False  # ask the coordinator for the card of `model`
    models: tuple[str, ...] = ()  # more models: CARD, or CARD=FILE
    data_dir: str = ""  # empty: the platform's data folder
    listen: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/0",)
    announce: tuple[str, ...] = ()  # addresses to tell instead of those listened on
    threads: int = 0  # for the engine; 0: all cores but one
    slots: int = 4
    context: int = 2_048
    models_quota_gib: int = 0  # most that <data_dir>/models may hold; 0: the whole disk
    model_peers: tuple[str, ...] = ()  # nodes to fetch the model from, written like coordinator
    share_mib_s: int = 0  # MiB/s to share the model with other nodes at; 0: it is not shared
    memory_gib: int = 0  # most that loaded models may take; 0: nine tenths of what is free
    fit: str = "shrink"  # slots and context to what memory is free; or "refuse" to start, or "off"
    follow: str = ""  # JSON-RPC URL of the coordinator's chain, to execute it again and vote
    operator: str = ""  # the owner's account key, hex; empty: the node's own
    chain: str = ""  # JSON-RPC URL of the chain to compare rules with; empty: they are believed
    registry: str = ""  # address of the ModelRegistry, hex; empty: of the first rules seen
    engine: str = "llama"
    engine_url: str = ""  # of the server that computes for engine "openai"
    engine_key_file: str = ""  # holds its key; mode 0600
    engine_model: str = ""  # its name for the model; empty: the card's
    profile: str = "exact"  # answers that can be audited bit for bit, or the machine's best rates
    hours: tuple[str, ...] = ()  # when to work: "mon-fri 22:00-07:00"; empty: always
    time_zone: str = ""  # of `hours`, as IANA names it; empty: the machine's
    idle_minutes: int = 0  # work only when nobody typed for so long; 0: always
    max_celsius: int = 0  # pause while a GPU is hotter; 0: not looked at
    max_watts: int = 0  # most each GPU may draw, set in the driver; 0: left as it is
    daily_upload_mib: int = 0  # most to send a day, of answers and model files; 0: any
    region: str = ""  # where the node is, for clients who ask: "eu-de"; empty: not told
    clients: tuple[str, ...] = ()  # keys, hex, whom alone to serve; empty: anybody
    refused_clients: tuple[str, ...] = ()  # keys, hex, whom not to serve
    min_price_in: int = 0  # micro-credits per 1,000 tokens of prompt
    min_price_out: int = 0  # and of answer
    drain_timeout: int = 60
    status_interval: int = 5
    otlp: str = ""  # URL of a collector of traces; empty: none are made
    metrics: str = ""  # HOST:PORT of /metrics, /healthz and /readyz; empty: they are not served
    metrics_password: str = ""  # file of the password that /metrics asks for; mode 0600
    metrics_names: tuple[str, ...] = ()  # what that server is called beside localhost and addresses
    metrics_open: bool = False  # whoever reaches it may read it

    def __post_init__(self) -> None:
        _require(self.engine in ENGINES, f"engine must be one of {', '.join(ENGINES)}")
        _require(self.profile in PROFILES, f"profile must be one of {', '.join(PROFILES)}")
        _require(self.fit in FITS, f"fit must be one of {', '.join(FITS)}")
        for name, least, most in _RANGES:
            value = getattr(self, name)
            _require(least <= value <= most, f"{name} must be in [{least}, {most}]")
        if self.operator:
            _require(_is_key(self.operator), "operator must be 64 hexadecimal digits")
        _require(not self.chain or _is_server(self.chain), "chain must be http(s)://HOST[:PORT]")
        _require(not self.registry or _is_address(self.registry), "registry must be 40 hex digits")
        _require(bool(self.listen), "listen needs an address")
        _require(len(self.hours) <= WINDOWS_MAX, f"hours may be {WINDOWS_MAX} windows")
        for text in self.hours:
            parse_window(text)
        _require(_is_zone(self.time_zone), f"time_zone: {self.time_zone!r} is not known here")
        _require(
            not self.region or is_region(self.region),
            "region must be words of a-z and 0-9 with hyphens between",
        )
        _require(all(map(_is_key, self.clients)), "clients must be 64 hexadecimal digits each")
        refused = all(map(_is_key, self.refused_clients))
        _require(refused, "refused_clients must be 64 hexadecimal digits each")
        one_only = self.engine != "llama" and self.models
        _require(not one_only, f"an engine {self.engine} serves one model")
        _require(all(_card_and_file(one)[0] for one in self.models), "models must be CARD[=FILE]")
        _require(
            len(self.each()) <= MODELS_PER_NODE_MAX, f"a node serves {MODELS_PER_NODE_MAX} models"
        )
        if self.otlp:
            check_endpoint("otlp", self.otlp)
        if self.metrics:
            parse_address("metrics", self.metrics)
        reader = self.metrics_password or self.metrics_names or self.metrics_open
        _require(not reader or bool(self.metrics), "metrics_password and so on go with metrics")
        if not self.metrics_password:  # else its file is read, at the start
            self.metrics_guard()
        if self.follow:
            _require(_is_server(self.follow), "follow must be http(s)://HOST[:PORT]")
        if self.engine == "openai":
            _require(_is_server(self.engine_url), "engine_url must be http(s)://HOST[:PORT]")

    @property
    def engine_threads(self) -> int:
        """`threads`, or as many as there are cores to spare."""
        return self.threads or spare_cores()

    @property
    def memory_bytes(self) -> int:
        """Most bytes that loaded models may take; 0: what is free tells."""
        return self.memory_gib << 30

    def each(self) -> tuple[Settings, ...]:
        """The settings for each model as if it were the only one: `model` and `card` first."""
        if not self.models:
            return (self,)
        alone = dataclasses.replace(self, models=())
        first = (alone,) if self.model or self.card else ()
        named = (_card_and_file(one) for one in self.models)
        return first + tuple(
            dataclasses.replace(alone, card=card, model=file, projector="", fetch_card=False)
            for card, file in named
        )

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Host and port of `metrics`, if it is served."""
        return parse_address("metrics", self.metrics) if self.metrics else None

    def metrics_guard(self) -> Guard:
        """Who may read `metrics`. Raises AssayError: "config_invalid", "key_permissions"."""
        address = self.metrics_address
        if address is None:
            return Guard()
        password = Path(self.metrics_password) if self.metrics_password else None
        return guard_of("--metrics", address, password, self.metrics_names, self.metrics_open)

    @property
    def models_quota_bytes(self) -> int:
        """Most bytes of model files to keep; 0: no bound."""
        return self.models_quota_gib << 30

    @property
    def directory(self) -> Path:
        """Where key, receipts, status and models are kept."""
        return data_folder(self.data_dir, "node")


_RANGES: Final = (
    ("threads", 0, 1_024),
    ("slots", 1, 4_096),
    ("context", 16, 1 << 20),
    ("models_quota_gib", 0, 1 << 20),
    ("memory_gib", 0, 1 << 20),
    ("share_mib_s", 0, 1 << 17),
    ("idle_minutes", 0, 1 << 20),
    ("max_celsius", 0, 200),
    ("max_watts", 0, 10_000),
    ("daily_upload_mib", 0, 1 << 30),
    ("min_price_in", 0, 1 << 40),
    ("min_price_out", 0, 1 << 40),
    ("drain_timeout", 0, 86_400),
    ("status_interval", 1, 3_600),
)


def load_settings(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> Settings:
    """The settings of one start; later sources win. Raises AssayError("config_invalid")."""
    return load_typed(Settings, ENVIRONMENT_PREFIX, file, environment, flags)


def load_from_process(file: str | None, flags: Mapping[str, Any]) -> Settings:
    """`load_settings` with this process's environment; ASSAY_NODE_CONFIG names the file, too."""
    name = file or os.environ.get(ENVIRONMENT_PREFIX + "CONFIG")
    return load_settings(Path(name) if name else None, os.environ, flags)


def _card_and_file(text: str) -> tuple[str, str]:
    """The two paths of one of `models`; no file: it is looked for in the models folder."""
    card, _, file = text.partition("=")
    return card, file


def _is_server(url: str) -> bool:
    parts = http_url(url)
    if parts is None:
        return False
    return not (parts.username or parts.password or parts.query or parts.fragment)


def _is_key(text: str) -> bool:
    try:
        return len(bytes.fromhex(text)) == 32
    except ValueError:
        return False


def _is_zone(name: str) -> bool:
    try:
        return not name or bool(ZoneInfo(name))
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return False


def _is_address(text: str) -> bool:
    return len(text) == 40 and all(digit in "0123456789abcdefABCDEF" for digit in text)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise AssayError("config_invalid", what)
