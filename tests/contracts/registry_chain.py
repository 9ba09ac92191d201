"""A local chain with a ModelRegistry whose timelock is a key of the test's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from assay_contracts import calls
from assay_contracts.adapters.embedded_chain import EmbeddedChain
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, address_of, poster_key
from assay_protocol.messages import Share

KEY = poster_key(bytes(range(32)))
POSTER = address_of(KEY)


@dataclass
class RegistryChain:
    """The chain both ways, and what governance would do, done at once."""

    local: LocalChain
    registry: bytes
    policies: int = 0

    def __post_init__(self) -> None:
        self.chain = EmbeddedChain(self.local)

    def set_model(self, model: bytes, allowed: bool, *shares: Share) -> None:
        plain = [(one.account, one.role, one.bps) for one in shares]
        self._send("setModel", model, allowed, plain)

    def set_open(self, is_open: bool) -> None:
        self._send("setOpen", is_open)

    def set_moderation(self, digest: bytes) -> None:
        self.policies += 1
        self._send("setModeration", digest, self.policies)

    def _send(self, function: str, *arguments: object) -> None:
        data = calls.encode("ModelRegistry", function, *arguments)
        self.local.send(KEY, self.registry, data)


@contextmanager
def registry_chain(folder: Path) -> Iterator[RegistryChain]:
    with LocalChain.open(folder / "chain.db", genesis=Genesis(POSTER)) as local:
        made = local.send(KEY, None, calls.constructor("ModelRegistry", POSTER, True))
        assert made.contract is not None
        yield RegistryChain(local, made.contract)
