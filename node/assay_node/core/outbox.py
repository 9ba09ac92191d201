"""Receipts on their way to the coordinator: durable first, then sent until booked or refused.

A receipt is pay. It is saved before it is sent (D1), sent again until the coordinator says it is
booked (booking is idempotent by ticket), and given up only on an answer that sending it again
cannot change. `settle` comes when the client's last word is in; until then it is only saved.

    unsaved --saved--> ready --sent--> sent --ReceiptBooked--> (gone: booked)
       ^--not saved, later again        |  --final refusal--> (gone: refused)
                                        '--no answer, other error--> ready, later again
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay_node.core.effects import Effect, Log, MarkReceipt, SaveReceipt
from assay_node.core.parameters import Parameters
from assay_node.core.sealing import Secrets
from assay_protocol.messages import ReceiptBooked, SubmitReceipt

# Answers that the same bytes will get every time.
FINAL_REFUSALS: Final = frozenset(
    {
        "unknown_ticket",
        "ticket_expired",  # the reservation ended long ago
        "receipt_mismatch",
        "bad_signature",
        "malformed",
        "oversized",
    }
)


@dataclass(frozen=True, slots=True)
class Owed:
    """A receipt not yet booked: signed blobs."""

    ticket: bytes
    ticket_blob: bytes
    receipt: bytes
    ack: bytes | None


@dataclass(slots=True)
class _Entry:
    owed: Owed
    settled: bool
    state: str = "unsaved"
    saving: int = 0  # saves under way
    tries: int = 0
    due_at: int = 0
    failed: str = ""  # why the last save failed


class Outbox:
    """All receipts this node is still owed for."""

    __slots__ = ("_entries", "_in_flight", "_parameters", "_secrets")

    def __init__(self, parameters: Parameters, secrets: Secrets) -> None:
        self._parameters, self._secrets = parameters, secrets
        self._entries: dict[bytes, _Entry] = {}
        self._in_flight = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def blocked(self) -> str | None:
        """Why no more jobs should be taken: receipts cannot be saved, or too many are unbooked."""
        for entry in self._entries.values():
            if entry.failed:
                return entry.failed
        return "busy" if len(self._entries) >= self._parameters.outbox_max else None

    def restore(self, owed: Owed) -> None:
        """A receipt saved by an earlier run."""
        self._entries[owed.ticket] = _Entry(owed, settled=True, state="ready")

    def add(self, owed: Owed) -> list[Effect]:
        """Save a new receipt; it is sent after `settle`."""
        assert owed.ticket not in self._entries, "one receipt a ticket (L2)"
        entry = self._entries[owed.ticket] = _Entry(owed, settled=False)
        return [_save(entry)]

    def settle(self, ticket: bytes, ack: bytes | None) -> list[Effect]:
        """The client's last word on a receipt is in."""
        entry = self._entries[ticket]
        entry.settled = True
        if ack == entry.owed.ack:
            return []
        owed = entry.owed
        entry.owed = Owed(owed.ticket, owed.ticket_blob, owed.receipt, ack)
        entry.state = "unsaved"
        return [_save(entry)]

    def saved(self, ticket: bytes) -> None:
        """A save is durable; the newest one makes the receipt ready."""
        entry = self._entries.get(ticket)
        if entry is None:
            return
        entry.saving -= 1
        entry.failed = ""
        if entry.saving == 0 and entry.state == "unsaved":
            entry.state, entry.tries, entry.due_at = "ready", 0, 0

    def not_saved(self, now: int, ticket: bytes, code: str) -> list[Effect]:
        """A save failed: try again later, and take no jobs until it works."""
        entry = self._entries.get(ticket)
        if entry is None:
            return []
        entry.saving -= 1
        entry.failed = code
        self._later(now, entry)
        return [Log("receipt_not_saved", (("code", code), ("tries", entry.tries)))]

    def due(
        self, now: int, *, may_send: bool
    ) -> tuple[list[Effect], list[tuple[bytes, SubmitReceipt]]]:
        """Saves to try again, and receipts to send now (each counts as in flight).

        `may_send` is false while the coordinator would not take any.
        """
        saves: list[Effect] = []
        sends: list[tuple[bytes, SubmitReceipt]] = []
        for ticket, entry in self._entries.items():
            if entry.due_at > now:
                continue
            if entry.state == "unsaved" and entry.saving == 0:
                saves.append(_save(entry))
            elif entry.state == "ready" and entry.settled and may_send:
                if self._in_flight >= self._parameters.outbox_in_flight_max:
                    break
                entry.state = "sent"
                self._in_flight += 1
                owed = entry.owed
                sends.append((ticket, SubmitReceipt(receipt=owed.receipt, ack=owed.ack)))
        return saves, sends

    def booked(self, answer: ReceiptBooked) -> list[Effect]:
        """The coordinator has it durably."""
        self._landed(answer.ticket)
        return [MarkReceipt(answer.ticket, "booked", answer.charged)]

    def refused(self, now: int, ticket: bytes, code: str) -> list[Effect]:
        """No booking this time: never again, or later."""
        if code in FINAL_REFUSALS:
            self._landed(ticket)
            fields = (("ticket", ticket.hex()), ("code", code))
            return [MarkReceipt(ticket, "refused", 0, code), Log("receipt_refused", fields)]
        self._in_flight -= 1
        entry = self._entries[ticket]
        entry.state = "ready"
        self._later(now, entry)
        return []

    def hurry(self) -> None:
        """The coordinator is back: what waits need not wait longer."""
        for entry in self._entries.values():
            entry.tries, entry.due_at = 0, 0

    def _landed(self, ticket: bytes) -> None:
        self._in_flight -= 1
        assert self._in_flight >= 0, "every answer is to one submission"
        del self._entries[ticket]

    def _later(self, now: int, entry: _Entry) -> None:
        entry.due_at = now + backoff(self._parameters, self._secrets, entry.tries)
        entry.tries += 1


def backoff(parameters: Parameters, secrets: Secrets, tries: int) -> int:
    """Microseconds to wait after failure number `tries` (from 0): doubling, half of it jitter."""
    most = min(parameters.retry_max_us, parameters.retry_base_us << min(tries, 16))
    return most // 2 + secrets.below(most // 2 + 1)


def _save(entry: _Entry) -> SaveReceipt:
    entry.saving += 1
    owed = entry.owed
    return SaveReceipt(owed.ticket, owed.receipt, owed.ack, owed.ticket_blob)
