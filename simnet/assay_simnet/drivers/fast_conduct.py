"""What a node that breaks the rules does otherwise: its answers, its word as auditor, silence."""

from __future__ import annotations

from typing import Protocol

from assay_node.engine.interface import Replay, Replayed
from assay_protocol.codec import decode, encode
from assay_protocol.messages import (
    AuditDecline,
    OpenLeaves,
    Receipt,
    SubmitReceipt,
    TranscriptRequest,
)
from assay_protocol.signing import Signer, peek, seal
from assay_simnet import evidence
from assay_simnet.cheats import BEHAVIOURS, Buyer
from assay_simnet.roster import PlannedNode
from assay_simnet.seeds import Stream


class Engine(Protocol):
    """What finds honestly what a replay shows."""

    def replay(self, request: Replay) -> Replayed: ...


class Conduct:
    """One such node's. It chooses by the node's own stream of chance."""

    __slots__ = ("_answers", "_draw", "_plan", "_signer", "buyer", "cheat", "cheated")

    def __init__(
        self, plan: PlannedNode, signer: Signer, draw: Stream, answers: evidence.Answers
    ) -> None:
        self._plan, self._signer, self._draw, self._answers = plan, signer, draw, answers
        self.cheat = BEHAVIOURS[plan.behaviour]
        self.buyer: Buyer | None = None  # its owner's, who buys from it
        self.cheated: dict[bytes, None] = {}  # tickets whose answers are not what was promised

    def cheats(self, ticket: bytes, jobs: int, state: str) -> bool:
        """Whether it cheats on this answer, its `jobs`-th; `state` is its standing."""
        cheat, plan = self.cheat, self._plan
        if not (cheat.condition or cheat.two_receipts):
            return False
        if cheat.only_active and state != "active":
            return False
        if self.buyer is not None and (self.buyer.bought(ticket) or not self.buyer.armed):
            return False
        if jobs < plan.cheat_after or not self._draw.chance(plan.cheat_share):
            return False
        self.cheated[ticket] = None
        return True

    @property
    def reads(self) -> bool:
        """Whether it spends a prefill on a replay."""
        return self.cheat.audits in ("honestly", "grudging")

    def word(self, request: Replay, engine: Engine) -> Replayed:
        """What it says it found."""
        key = self._signer.public_key
        match self.cheat.audits:
            case "unread":
                return evidence.unread(request, key)
            case "grudging":
                return evidence.grudging(request, engine.replay(request))
            case "for friends" | "against others" as mode:
                condition = self._answers.how(request.seed, request.start)
                if condition == evidence.MADE_UP:
                    return evidence.agreeing(request, condition)
                whose = key if mode == "for friends" else self._plan.behaviour.encode()
                return evidence.unread(request, whose)
            case _:
                return engine.replay(request)

    def hides(self, body: bytes) -> bool:
        """Whether it leaves a request about an answer it cheated on without what was asked."""
        hidden = self.cheat.hides
        if hidden is None:
            return False
        message = decode(body)
        if not isinstance(message, hidden):
            return False
        assert isinstance(message, OpenLeaves | TranscriptRequest)
        return message.ticket in self.cheated

    def excuse(self, body: bytes) -> bytes | None:
        """What it answers to a request it hides from, if anything."""
        if not self.cheat.says_lost:
            return None
        message = decode(body)
        assert isinstance(message, OpenLeaves | TranscriptRequest)
        return encode(AuditDecline(audit=message.audit, code="transcript_lost"))

    def other_receipt(self, body: bytes) -> bytes | None:
        """A second receipt beside the one in a message of its, if it signs two."""
        if not self.cheat.two_receipts:
            return None
        message = decode(body)
        if not isinstance(message, SubmitReceipt):
            return None
        first = peek(Receipt, message.receipt)
        if first.ticket not in self.cheated:
            return None
        fields = {name: getattr(first, name) for name in Receipt.__dataclass_fields__}
        other = Receipt(**{**fields, "root": bytes(32)})
        return encode(SubmitReceipt(receipt=seal(self._signer, other), ack=message.ack))
