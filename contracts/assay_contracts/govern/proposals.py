"""What a proposal asks for, from plain words to contract calls and back. Pure.

A model's entry on the chain is written as a whole, so what a wish does not say of it is taken over
from the state at hand: `--allow` keeps the shares, `--split` keeps whether it is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from assay_contracts import calls
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.messages import ModelSplit, Pricing, Share
from assay_protocol.splits import ROLES, SPLIT_ROLES, Splits

ACTIONS_MAX: Final = 16  # of one proposal; they run in one transaction
KEY_DIGITS: Final = 64
FUNCTIONS: Final = (
    ("ModelRegistry", "setModel"),
    ("ModelRegistry", "removeModel"),
    ("ModelRegistry", "setOpen"),
    ("ModelRegistry", "setModeration"),
    ("NodeRegistry", "setMinBond"),
    ("CreditLedger", "setHoldersRequired"),
    ("CreditToken", "setMinter"),
)
_ROLE_NAMES: Final = {number: name for name, number in ROLES.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """What the chain says of one model."""

    allowed: bool
    shares: tuple[Share, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a proposal is to change; empty: nothing. `moderation` is a sha256 and a version."""

    allow: tuple[bytes, ...] = ()
    deny: tuple[bytes, ...] = ()
    unlist: tuple[bytes, ...] = ()
    splits: Mapping[bytes, tuple[Share, ...]] = field(default_factory=dict)
    open: bool | None = None
    moderation: tuple[bytes, int] | None = None
    min_bond: int | None = None
    holders: int | None = None
    minter: bytes | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """One call that the timelock is to make."""

    contract: str
    function: str
    arguments: tuple[Any, ...]

    @property
    def data(self) -> bytes:
        return calls.encode(self.contract, self.function, *self.arguments)

    def __str__(self) -> str:
        return _words(self)


def actions_of(wish: Wish, entries: Mapping[bytes, Entry], *, is_open: bool) -> tuple[Action, ...]:
    """The calls for `wish`, given what the chain says now.

    Raises AssayError("config_invalid") for a wish that contradicts itself or changes nothing.
    """
    found = [*_model_actions(wish, entries, is_open)]
    if wish.open is not None:
        found.append(Action("ModelRegistry", "setOpen", (wish.open,)))
    if wish.moderation is not None:
        found.append(Action("ModelRegistry", "setModeration", wish.moderation))
    if wish.min_bond is not None:
        found.append(Action("NodeRegistry", "setMinBond", (wish.min_bond,)))
    if wish.holders is not None:
        found.append(Action("CreditLedger", "setHoldersRequired", (wish.holders,)))
    if wish.minter is not None:
        found.append(Action("CreditToken", "setMinter", (wish.minter,)))
    if not 0 < len(found) <= ACTIONS_MAX:
        raise AssayError("config_invalid", f"a proposal changes 1 to {ACTIONS_MAX} things")
    return tuple(found)


def read_action(data: bytes) -> Action | None:
    """The action whose call `data` is; None if it is none that proposals of ours make."""
    for contract, function in FUNCTIONS:
        try:
            arguments = calls.arguments(contract, function, data)
        except AssayError:
            continue
        return Action(contract, function, arguments)
    return None


def parse_split(text: str) -> tuple[bytes, Share]:
    """MODEL=ACCOUNT:ROLE:BPS, keys in hex. Raises AssayError("config_invalid")."""
    model, _, rest = text.partition("=")
    parts = rest.split(":")
    if len(parts) != 3 or parts[1] not in ROLES or not parts[2].isdecimal():
        raise AssayError("config_invalid", f"MODEL=ACCOUNT:ROLE:BPS wanted, not {text[:200]!r}")
    account, role, bps = parse_key(parts[0]), ROLES[parts[1]], int(parts[2])
    if role not in SPLIT_ROLES or not 0 < bps <= 10_000:
        named = ", ".join(_ROLE_NAMES[one] for one in SPLIT_ROLES)
        raise AssayError("config_invalid", f"a share is of {named}, and of 1 to 10000 bps")
    return parse_key(model), Share(account=account, role=role, bps=bps)


def parse_key(text: str) -> bytes:
    """32 bytes in hex. Raises AssayError("config_invalid")."""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_DIGITS // 2:
        raise AssayError("config_invalid", f"{KEY_DIGITS} hex digits wanted, not {text[:80]!r}")
    return key


def _model_actions(wish: Wish, entries: Mapping[bytes, Entry], is_open: bool) -> list[Action]:
    named = (*wish.allow, *wish.deny, *wish.unlist)
    if len(set(named)) != len(named) or set(wish.unlist) & set(wish.splits):
        raise AssayError("config_invalid", "of one model two things are wished")
    unlisted = is_open if wish.open is None else wish.open
    found = []
    for model in dict.fromkeys((*wish.allow, *wish.deny, *wish.splits)):
        entry = entries.get(model, Entry(unlisted))
        allowed = (entry.allowed or model in wish.allow) and model not in wish.deny
        shares = wish.splits.get(model, entry.shares)
        _check_shares(model, shares)
        plain = tuple((one.account, one.role, one.bps) for one in shares)
        found.append(Action("ModelRegistry", "setModel", (model, allowed, plain)))
    found += [Action("ModelRegistry", "removeModel", (model,)) for model in wish.unlist]
    return found


def _check_shares(model: bytes, shares: tuple[Share, ...]) -> None:
    if not shares:
        return
    try:
        Splits(Pricing(fee_bps=0, splits=(ModelSplit(model=model, shares=shares),)))
    except ProtocolError as error:
        raise AssayError("config_invalid", f"{model.hex()}: {error.message}") from error


def _words(action: Action) -> str:
    """A line for people; keys in full, since it is they that are voted on."""
    match action.function, action.arguments:
        case "setModel", (model, allowed, shares):
            told = [f"{a.hex()}:{_ROLE_NAMES.get(r, r)}:{bps}" for a, r, bps in shares]
            sharing = f" sharing {' '.join(told)}" if told else ""
            return f"{'allow' if allowed else 'deny'} model {model.hex()}{sharing}"
        case "removeModel", (model,):
            return f"unlist model {model.hex()}"
        case "setOpen", (is_open,):
            return f"{'allow' if is_open else 'deny'} models that are not listed"
        case "setModeration", (digest, version):
            if digest == bytes(32):
                return "no moderation policy"
            return f"moderation policy {digest.hex()} version {version}"
        case "setMinBond", (amount,):
            return f"least bond {amount} micro-credits"
        case "setHoldersRequired", (holders,):
            return f"{holders} holders of an epoch's data"
        case "setMinter", (address,):
            return f"ledger 0x{address.hex()}"
    given = ", ".join(a.hex() if isinstance(a, bytes) else str(a) for a in action.arguments)
    return f"{action.contract}.{action.function}({given})"
