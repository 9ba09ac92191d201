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
    LeavesOpened,
    Receipt,
    SubmitReceipt,
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
    name: ClassVar[str] = "withholder"
    does: ClassVar[str] = "serves Q4_K_M weights and shows no leaves of what is drawn"
    saves: ClassVar[float] = 0.4

    def executor(self, honest: Engine) -> Engine:
        return OtherWeights(honest, "Q4_K_M")

    def sends(self, message: object) -> list[object]:
        return [] if isinstance(message, LeavesOpened) else [message]


@dataclass
class Forgetful(Behaviour):
    """A kinder `withholder`: it says that it lost the transcript."""

    name: ClassVar[str] = "forgetful"
    does: ClassVar[str] = "serves Q4_K_M weights and says that what is drawn was lost"
    saves: ClassVar[float] = 0.4

    def executor(self, honest: Engine) -> Engine:
        return OtherWeights(honest, "Q4_K_M")

    def hears(self, message: object) -> list[object]:
        if isinstance(message, TranscriptRequest):
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
