"""Nodes, parties and jurors before the contract SlashCourt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from assay_contracts.follow.equivocation import statement
from assay_protocol.messages import Receipt, Seal
from assay_protocol.signing import Identity, seal
from contracts.network_evm import NetworkEvm, registration

COURT = "SlashCourt"
ACCUSER, OWNER = bytes([0xAC]) * 20, bytes([0x0E]) * 20
CULPRIT = Identity(bytes([66]) * 32)
KEY = CULPRIT.public_key
NONE, ACCUSED, DISPUTED, VOTING, GUILTY, ACQUITTED, DISMISSED = range(7)
RECEIPT = Receipt(
    ticket=bytes(range(16)),
    class_id="exact",
    output_hash=bytes(32),
    root=bytes([1]) * 32,
    n_in=300,
    n_out=70_000,
    finish="length",
    started_at=1_800_000_000_000_000,
    first_at=1_800_000_000_500_000,
    ended_at=1_800_000_009_000_000,
)
SEAL = Seal(subject=b"block" + bytes(26) + b"\x07", digest=bytes([2]) * 32)


def juror(number: int) -> bytes:
    """The owner of juror number `number`'s node."""
    return bytes([0x70 + number]) * 20


def enroll(evm: NetworkEvm, identity: Identity, owner: bytes, bond: int = 200) -> bytes:
    """Registers and activates a node; gives its key."""
    evm.give(owner, bond, "NodeRegistry", COURT)
    consent = registration(evm, identity, owner, "Register")
    evm.send(owner, "NodeRegistry", "register", identity.public_key, bond, consent)
    evm.pass_time(evm.wiring.probation)
    evm.send(owner, "NodeRegistry", "activate", identity.public_key)
    return identity.public_key


def courtroom(jurors: int = 9) -> NetworkEvm:
    """An accused node, an accuser with money, and nodes whose owners may be jurors."""
    evm = NetworkEvm()
    enroll(evm, CULPRIT, OWNER)
    for number in range(jurors):
        enroll(evm, Identity(bytes([100 + number]) * 32), juror(number))
    for party in (ACCUSER, OWNER):
        evm.give(party, 10_000, COURT)
    return evm


def accuse(evm: NetworkEvm, evidence: int = 1, amount: int = 60) -> int:
    case: int = evm.send(ACCUSER, COURT, "accuse", KEY, bytes([evidence]) * 32, amount)
    return case


def drawn(evm: NetworkEvm, evidence: int = 1) -> tuple[int, list[bytes]]:
    """A disputed case with its jury."""
    case = accuse(evm, evidence)
    evm.send(OWNER, COURT, "dispute", case)
    evm.pass_time(10, blocks=evm.wiring.draw_delay + 1)
    evm.send(ACCUSER, COURT, "draw", case)
    return case, [seat for seat, _ in evm.ask(COURT, "jurorsOf", case)]


def vote(evm: NetworkEvm, case: int, jurors: list[bytes], guilty: int, innocent: int) -> None:
    for seat, who in enumerate(jurors[: guilty + innocent]):
        evm.send(who, COURT, "vote", case, seat < guilty)


def state(evm: NetworkEvm, case: int) -> int:
    found: int = evm.ask(COURT, "cases", case)[8 - 1]
    return found


def two(first: Any, second: Any, key: Identity = CULPRIT, other: Identity = CULPRIT) -> list[Any]:
    """Arguments of `equivocation`: `first` signed by `key`, `second` by `other`."""
    parts: list[Any] = [key.public_key]
    for said, signer in ((first, key), (second, other)):
        parts += statement(type(said), signer.public_key, seal(signer, said))
    return parts


def receipts(calibration: int | None = None, **changes: Any) -> tuple[Receipt, Receipt]:
    """Two accounts of one job."""
    first = replace(RECEIPT, calibration=calibration)
    return first, replace(first, **(changes or {"n_out": 70_001}))
