"""Nodes that compute honestly or not and then say other things than the protocol wants."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from assay_protocol.codec import decode
from assay_protocol.messages import (
    AuditCommit,
    AuditDecline,
    Finished,
    OpenLeaves,
    Receipt,
    SubmitReceipt,
    Ticket,
    TranscriptRequest,
)
from assay_protocol.signing import peek, seal
from assay_simnet.behaviours.behaviour import Behaviour
from assay_simnet.behaviours.engines import OtherWeights
from assay_simnet.engine import Engine
from assay_simnet.setting import SECOND

WAIT_US: Final = 300 * SECOND  # of no_commit: until after any draw of the round


@dataclass
class Equivocator(Behaviour):
    name: ClassVar[str] = "equivocator"
    does: ClassVar[str] = "signs a second receipt for a ticket, with another root"

    def sends(self, message: object) -> list[object]:
        if not isinstance(message, SubmitReceipt):
            return [message]
        first = peek(Receipt, message.receipt)
        other = replace(first, root=hashlib.sha256(first.root).digest())
        return [message, SubmitReceipt(receipt=seal(self.party.identity, other), ack=message.ack)]


@dataclass
class Withholder(Behaviour):
    """Cheats only while few of its jobs are audited, and shows nothing of what it cheated on."""

    name: ClassVar[str] = "withholder"
    does: ClassVar[str] = "serves a small model while rarely audited, and shows no leaves of it"
    saves: ClassVar[float] = 0.8

    def cheats(self, number: int, ticket: Ticket) -> bool:
        return self.party.core.repute.state == "active" and super().cheats(number, ticket)

    def executor(self, honest: Engine) -> Engine:
        return OtherWeights(honest, "other_model")

    def hears(self, message: object) -> list[object]:
        withheld = isinstance(message, OpenLeaves) and message.ticket in self.party.cheated
        return [] if withheld else [message]


@dataclass
class Forgetful(Withholder):
    """A kinder `withholder`: it says that it lost the transcript."""

    name: ClassVar[str] = "forgetful"
    does: ClassVar[str] = "serves a small model while rarely audited, and says it lost those jobs"

    def hears(self, message: object) -> list[object]:
        if isinstance(message, TranscriptRequest) and message.ticket in self.party.cheated:
            self.party.say(AuditDecline(audit=message.audit, code="transcript_lost"))
            return []
        return [message]


@dataclass
class NoCommit(Behaviour):
    """Neither client nor coordinator gets a receipt before the draw of its round is known."""

    name: ClassVar[str] = "no_commit"
    does: ClassVar[str] = "keeps its receipts back until it could know what is drawn"
    saves: ClassVar[float] = 0.4

    def executor(self, honest: Engine) -> Engine:
        return OtherWeights(honest, "Q4_K_M")

    def waits_us(self, message: object) -> int:
        return WAIT_US if isinstance(message, SubmitReceipt) else 0

    def frames(self, frame: bytes) -> list[bytes]:
        return [] if isinstance(decode(frame), Finished) else [frame]


@dataclass
class CopyAuditor(Behaviour):
    name: ClassVar[str] = "copy_auditor"
    does: ClassVar[str] = "waits for the executor's leaves before it says what it found"

    def sends(self, message: object) -> list[object]:
        return [] if isinstance(message, AuditCommit) else [message]
