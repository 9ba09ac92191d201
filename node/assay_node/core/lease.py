"""The node's place in the network: registered, kept alive by heartbeats, taken again when lost.

At most one request (Register or Heartbeat) is under way. A refusal `not_registered` means the lease
is gone: register again at once, then with growing, jittered waits. No session, no requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from assay_node.core.outbox import backoff
from assay_node.core.parameters import Parameters
from assay_node.core.sealing import Secrets
from assay_protocol.messages import Heartbeat, HeartbeatAck, Register, Registered


@dataclass(slots=True)
class Repute:
    """What the coordinator last said of this node. Money in micro-credits."""

    state: str = "unregistered"
    reason: str = ""
    audits_passed: int = 0
    audits_failed: int = 0
    earned: int = 0
    escrow: int = 0
    clock_skew_us: int = 0  # coordinator's clock minus ours


class Lease:
    """Decides when to register and when to send a heartbeat."""

    __slots__ = (
        "_asking",
        "_connected",
        "_due_at",
        "_heartbeat_us",
        "_lease_us",
        "_parameters",
        "_register",
        "_registered",
        "_secrets",
        "_told_draining",
        "_tries",
        "_until",
        "block",
        "booked_at",
        "drawn",
        "joined_at",
        "repute",
    )

    def __init__(
        self, register: Callable[[], Register], parameters: Parameters, secrets: Secrets
    ) -> None:
        self.repute = Repute()
        self._register, self._parameters, self._secrets = register, parameters, secrets
        self._connected = self._registered = self._asking = self._told_draining = False
        self._until = self._due_at = self._tries = 0
        self._heartbeat_us = self._lease_us = 0
        self.block: int | None = None  # of the chain, that the coordinator wants votes on
        self.drawn: int | None = None  # of its answers, may be or are audited; None: unknown
        self.booked_at = 0
        self.joined_at = 0  # the first registration, by the coordinator's clock

    @property
    def registered(self) -> bool:
        return self._registered

    @property
    def farewell_said(self) -> bool:
        """Whether the coordinator knows that the node drains, or cannot be told."""
        if not self._connected:
            return True
        return self._registered and self._told_draining and not self._asking

    @property
    def rests_until(self) -> int:
        """When the next heartbeat is due; 0 while the coordinator is asked, or cannot be."""
        return self._due_at if self._registered and not self._asking else 0

    def held(self, now: int) -> bool:
        """Whether tickets may still be honoured: they outlive the lease they were given under."""
        return now < self._until + self._parameters.lease_grace_us and self._until > 0

    def booked(self, now: int) -> None:
        """A receipt was booked: it may have been drawn, which only the next heartbeat tells."""
        self.drawn, self.booked_at = None, now

    def connected(self) -> None:
        self._connected, self._asking, self._registered = True, False, False
        self._due_at = self._tries = 0

    def renew(self, now: int) -> None:
        """What the node offers has changed: register again."""
        self._registered, self._due_at = False, now

    def disconnected(self) -> None:
        self._connected = self._registered = self._asking = False

    def is_due(self, now: int, draining: bool, paused: bool = False) -> bool:
        """Whether to `ask` now. A question of its own: it comes up after every event."""
        if not self._connected or self._asking:
            return False
        news = self._told_draining != (draining or paused) or (draining and self.drawn is None)
        return now >= self._due_at or (self._registered and news)

    def ask(self, heartbeat: Heartbeat) -> Register | Heartbeat:
        """The request to send now; it counts as under way."""
        self._asking = True
        if not self._registered:
            return self._register()
        self._told_draining = heartbeat.draining
        return heartbeat

    def answered(self, now: int, answer: Registered | HeartbeatAck) -> None:
        """The lease runs anew."""
        self._asking, self._tries = False, 0
        self.repute.state = answer.state
        if isinstance(answer, Registered):
            self._registered, self._told_draining = True, False
            self.joined_at = self.joined_at or answer.now_at
            # A coordinator's 0 must not make us a request loop.
            self._heartbeat_us = max(answer.heartbeat_ms * 1000, self._parameters.heartbeat_min_us)
            self._lease_us = answer.lease_ms * 1000
            self.repute.clock_skew_us = answer.now_at - now
        else:
            self.repute.audits_passed = answer.audits_passed
            self.repute.audits_failed = answer.audits_failed
            self.repute.earned, self.repute.escrow = answer.earned, answer.escrow
            self.drawn = answer.drawn or 0
            self.block = answer.block
        self._until = now + self._lease_us
        self._due_at = now + self._heartbeat_us

    def refused(self, now: int, code: str) -> None:
        """No lease this time."""
        self._asking = False
        if code == "not_registered" and self._registered:
            self._registered, self._due_at = False, now
            return
        self._due_at = now + backoff(self._parameters, self._secrets, self._tries)
        self._tries += 1
