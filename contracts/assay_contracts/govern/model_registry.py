"""The contract ModelRegistry read as rules: which models may be served, who shares, which policy.

Everything is read at one block. A chain's answer that is no registry's raises AssayError
("malformed", "contract_refused"); one that cannot be had now "chain_unavailable".
"""

from __future__ import annotations

from typing import Any, Final

from assay_contracts import calls
from assay_contracts.adapters.backend import Chain
from assay_contracts.govern.proposals import Entry
from assay_contracts.records import ContractRefused
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.limits import RULED_MODELS_MAX
from assay_protocol.messages import ModelRule, ModelSplit, NetworkRules, Share

CONTRACT: Final = "ModelRegistry"
PAGE_MODELS: Final = 64  # of one question: some 600,000 gas, each a cold read


async def registry_version(chain: Chain, registry: bytes, block: int) -> int:
    """How often the rules had changed by `block`."""
    version: int = await _ask(chain, registry, block, "version")
    return version


async def read_open(chain: Chain, registry: bytes, block: int) -> bool:
    """Whether models that are not listed may be served, at `block`."""
    is_open: bool = await _ask(chain, registry, block, "open")
    return is_open


async def read_entries(chain: Chain, registry: bytes, block: int) -> dict[bytes, Entry]:
    """What the registry says of each model, at `block`."""
    found: dict[bytes, Entry] = {}
    count: int = await _ask(chain, registry, block, "modelCount")
    if count > RULED_MODELS_MAX:
        raise AssayError("malformed", f"a registry of {count} models")
    while len(found) < count:
        data = calls.encode(CONTRACT, "rules", len(found), PAGE_MODELS)
        answer = await chain.call(registry, data, at=block)
        _, page = calls.decode(CONTRACT, "rules", answer)
        entries = {model: Entry(allowed, _shares(splits)) for model, allowed, splits in page}
        if not entries or entries.keys() & found.keys():
            raise AssayError("malformed", "a registry whose list has no end")
        found |= entries
    return found


async def read_registry(
    chain: Chain, registry: bytes, block: int
) -> tuple[NetworkRules, tuple[ModelSplit, ...]]:
    """The rules without the policy's own bytes, and who shares in which model's jobs."""
    entries = await read_entries(chain, registry, block)
    rules = NetworkRules(
        chain=await chain.chain_id(),
        registry=registry,
        block=block,
        version=await registry_version(chain, registry, block),
        open=await read_open(chain, registry, block),
        models=tuple(ModelRule(model=key, allowed=one.allowed) for key, one in entries.items()),
        moderation=await _ask(chain, registry, block, "moderation"),
        policy=b"",
        policy_author=b"",
    )
    splits = tuple(
        ModelSplit(model=k, shares=one.shares) for k, one in entries.items() if one.shares
    )
    return rules, splits


async def compare_rules(chain: Chain, rules: NetworkRules) -> None:
    """Raises ProtocolError("rules_invalid") if the contract says something else at the rules' own
    block, other AssayErrors if the chain cannot say."""
    if await chain.chain_id() != rules.chain:
        raise ProtocolError("rules_invalid", "they are of another chain than the owner's")
    try:
        told, _ = await read_registry(chain, rules.registry, rules.block)
    except ContractRefused as error:
        raise ProtocolError("rules_invalid", "there is no registry at that address") from error
    except AssayError as error:
        if error.code != "malformed":
            raise
        raise ProtocolError("rules_invalid", error.message) from error
    if _content(told) != _content(rules):
        raise ProtocolError("rules_invalid", "they are not what the contract says")


async def _ask(chain: Chain, registry: bytes, block: int, what: str) -> Any:
    answer = await chain.call(registry, calls.encode(CONTRACT, what), at=block)
    return calls.decode(CONTRACT, what, answer)[0]


def _shares(splits: tuple[tuple[bytes, int, int], ...]) -> tuple[Share, ...]:
    return tuple(Share(account=account, role=role, bps=bps) for account, role, bps in splits)


def _content(rules: NetworkRules) -> tuple[object, ...]:
    models = frozenset((one.model, one.allowed) for one in rules.models)
    return rules.version, rules.open, models, rules.moderation
