"""What governance decided, as the coordinator follows and publishes it.

    RulesRead (a final state of the contract ModelRegistry) -> in force here, in a row
                                                            -> the document that nodes obey

What is denied gets no tickets at once. The document changes with it, unless the chain names a
moderation policy that this coordinator was not given: no node may obey rules without the policy
they name, so the last whole document stands until the operator gives the file. Versions only rise,
and one version has one content; what contradicts that is told and not followed. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from assay_coordinator.core.events import Effect, Log, RulesRead, Save
from assay_coordinator.core.records import RulesRow
from assay_protocol.codec import decode_as, encode
from assay_protocol.errors import AssayError
from assay_protocol.messages import NetworkRules, Part
from assay_protocol.moderation import policy_digest

PART_BYTES: Final = 512 * 1024
NO_POLICY: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class SignedPolicy:
    """A moderation policy as its author (a key) signed it; checked when it was read."""

    author: bytes
    blob: bytes


class Rules:
    """The rules in force. Before any were read, all models are allowed and nothing is published."""

    def __init__(self, policy: SignedPolicy | None = None) -> None:
        self._policy = policy
        self.current: NetworkRules | None = None  # what the chain said last, without the policy
        self.document = b""  # what nodes are given: the last whole rules
        self._allowed: dict[bytes, bool] = {}

    def restore(self, row: RulesRow | None) -> None:
        """Become what the table says: it is followed before the chain answers."""
        if row is not None:
            self._follow(decode_as(NetworkRules, row.state))
            self.document = row.document

    @property
    def digest(self) -> bytes | None:
        """The name of the document in heartbeats."""
        return sha256(self.document).digest() if self.document else None

    @property
    def lacks_policy(self) -> bytes | None:
        """The hash of a policy that the chain names and that was not given to this coordinator."""
        current = self.current
        if current is None or current.moderation == NO_POLICY or self._given(current.moderation):
            return None
        return current.moderation

    def allows(self, model: bytes) -> bool:
        unlisted = self.current is None or self.current.open
        return self._allowed.get(model, unlisted)

    def part(self, offset: int) -> Part:
        """A piece of the document. Raises AssayError("rules_invalid") if there is none."""
        if not self.document:
            raise AssayError("rules_invalid", "no rules are in force here")
        data = self.document[offset : offset + PART_BYTES]
        return Part(total=len(self.document), data=data)

    def read(self, event: RulesRead) -> list[Effect]:
        """Follow what the chain says; the same again changes nothing."""
        current, told = self.current, event.rules
        if current is not None and _same_contract(current, told):
            if told.version < current.version or (
                told.version == current.version and _content(told) != _content(current)
            ):
                fields = (("version", told.version), ("in_force", current.version))
                return [Log("rules_refused", fields)]
            if told.version == current.version:
                told = current  # at another block: no news
        self._follow(told)
        before, lacking = self.document, self.lacks_policy
        if lacking is None:
            self.document = encode(self._whole(told))
        effects: list[Effect] = []
        if told != current or self.document != before:
            effects.append(Save(RulesRow(0, encode(told), self.document)))
            fields = (("version", told.version), ("models", len(told.models)))
            effects.append(Log("rules_read", fields))
        if lacking is not None:
            effects.append(Log("moderation_missing", (("sha256", lacking.hex()),)))
        return effects

    def _follow(self, told: NetworkRules) -> None:
        self.current = told
        self._allowed = {one.model: one.allowed for one in told.models}

    def _whole(self, told: NetworkRules) -> NetworkRules:
        if told.moderation == NO_POLICY:
            return told
        assert self._policy is not None
        return replace(told, policy=self._policy.blob, policy_author=self._policy.author)

    def _given(self, moderation: bytes) -> bool:
        return self._policy is not None and policy_digest(self._policy.blob) == moderation


def _same_contract(one: NetworkRules, other: NetworkRules) -> bool:
    return (one.chain, one.registry) == (other.chain, other.registry)


def _content(rules: NetworkRules) -> NetworkRules:
    """What the contract says in a version, wherever it was read."""
    return replace(rules, block=0, models=tuple(sorted(rules.models, key=lambda one: one.model)))
