"""What governance lets this node do: the rules in force here, and how others take their place.

    told of another digest --fetched--> judged --KeepRules--> RulesKept --> in force

Rules are judged before anything of them is kept, and durable before they are obeyed. What is not
valid changes nothing: the node goes on with the rules it had. Valid are rules of the chain and
contract that the owner named, or else of those first seen; of no lower version than those in force,
and not another content under the same one; with the very policy whose hash is on the chain, signed
by its author.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from assay_node.core.effects import Effect, KeepRules, Log
from assay_node.core.parameters import Served
from assay_protocol.codec import decode_as
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.limits import MESSAGE_BYTES_MAX
from assay_protocol.messages import GetPart, NetworkRules, Part
from assay_protocol.moderation import Phrases, open_policy, policy_digest, text_of
from assay_protocol.signing import ED25519, Verifier

WHAT: Final = "rules"
NO_KEY: Final = bytes(32)
NO_POLICY: Final = bytes(32)
_NO_PHRASES: Final = Phrases(())


@dataclass(frozen=True, slots=True)
class Source:
    """Whose rules the owner trusts; None: those first seen."""

    chain: int | None = None
    registry: bytes | None = None


class Rules:
    """The rules in force. Without any, all models and all prompts are allowed."""

    __slots__ = ("_allowed", "_phrases", "_reads", "_source", "_verifier", "current", "digest")

    def __init__(
        self, source: Source | None = None, kept: bytes = b"", verifier: Verifier = ED25519
    ) -> None:
        """`kept`: the document of an earlier run. Raises ProtocolError("rules_invalid") of it."""
        self._source, self._verifier = source or Source(), verifier
        self.current: NetworkRules | None = None
        self.digest = b""
        self._allowed: dict[bytes, bool] = {}
        self._phrases = _NO_PHRASES
        self._reads = False  # whether the policy has phrases to look for
        if kept:
            self.obey(kept, self.judge(kept))

    @property
    def version(self) -> int:
        return -1 if self.current is None else self.current.version

    def judge(self, document: bytes) -> NetworkRules:
        """The rules in `document`. Raises ProtocolError("rules_invalid") if they must not be
        obeyed."""
        try:
            rules = decode_as(NetworkRules, document)
        except ProtocolError as error:
            raise ProtocolError("rules_invalid", error.message) from error
        self._check_source(rules)
        self._check_order(rules)
        self._check_policy(rules)
        return rules

    def obey(self, document: bytes, rules: NetworkRules) -> None:
        """Put judged rules in force."""
        self.current, self.digest = rules, sha256(document).digest()
        self._allowed = {one.model: one.allowed for one in rules.models}
        policy = None
        if rules.policy:
            policy = open_policy(rules.policy, rules.policy_author, self._verifier)
        self._phrases = Phrases(policy.phrases) if policy else _NO_PHRASES
        self._reads = bool(policy and policy.phrases)

    def allows(self, model: bytes) -> bool:
        """Whether `model` may be served."""
        unlisted = self.current is None or self.current.open
        return self._allowed.get(model, unlisted)

    def check_prompt(self, served: Served, prompt: tuple[int, ...]) -> None:
        """Raises AssayError: "prompt_refused" if the policy refuses the prompt, "model_unknown" if
        this node cannot tell. Neither says which phrase it was."""
        if not self._reads:
            return
        if len(served.pieces) < served.n_vocab:
            raise AssayError("model_unknown", "no vocabulary here to apply the policy with")
        if self._phrases.in_text(text_of(served.pieces, prompt)):
            raise AssayError("prompt_refused")

    def _check_source(self, rules: NetworkRules) -> None:
        chain, registry = self._source.chain, self._source.registry
        if self.current is not None:
            chain, registry = chain or self.current.chain, registry or self.current.registry
        if chain not in (None, rules.chain) or registry not in (None, rules.registry):
            raise ProtocolError("rules_invalid", "they are of another chain or registry")

    def _check_order(self, rules: NetworkRules) -> None:
        if len({one.model for one in rules.models}) != len(rules.models):
            raise ProtocolError("rules_invalid", "they say two things of one model")
        if rules.version < self.version:
            raise ProtocolError("rules_invalid", f"version {self.version} is in force")
        if rules.version == self.version and _content(rules) != _content(self.current):
            raise ProtocolError("rules_invalid", "they are not what they were")

    def _check_policy(self, rules: NetworkRules) -> None:
        if rules.moderation == NO_POLICY and not rules.policy:
            return
        if policy_digest(rules.policy) != rules.moderation:
            raise ProtocolError("rules_invalid", "the policy is not the one on the chain")
        open_policy(rules.policy, rules.policy_author, self._verifier)


class RulesFetch:
    """Gets the rules the coordinator tells of, one request at a time, and has them kept."""

    __slots__ = ("_busy", "_got", "_judged", "_refused", "_rules")

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._got = b""
        self._busy = False  # asking, or waiting until they are kept
        self._judged: tuple[bytes, NetworkRules] | None = None
        self._refused = b""  # digest of the last that were not valid

    def told(self, digest: bytes | None) -> GetPart | None:
        """What to ask, now that the coordinator named the rules in force."""
        if digest is None or self._busy or digest in (self._rules.digest, self._refused):
            return None
        self._busy, self._got = True, b""
        return self._question()

    def answered(self, answer: object) -> tuple[GetPart | None, list[Effect]]:
        """The next question, if there is more, and what else to do."""
        if not isinstance(answer, Part):
            self.failed()
            return None, []
        self._got += answer.data
        if not answer.data or max(answer.total, len(self._got)) > MESSAGE_BYTES_MAX:
            self.failed()
            return None, [Log("rules_refused", (("code", "oversized"),))]
        if len(self._got) < answer.total:
            return self._question(), []
        return None, self._judge(self._got)

    def failed(self) -> None:
        """No answer: the next heartbeat brings another try."""
        self._busy, self._got, self._judged = False, b"", None

    def kept(self) -> list[Effect]:
        """They are durable: from now on they are obeyed."""
        if self._judged is None:
            return []
        self._rules.obey(*self._judged)
        version = self._judged[1].version
        self.failed()
        return [Log("rules_in_force", (("version", version),))]

    def not_kept(self, code: str) -> list[Effect]:
        """They contradict the chain, or could not be compared or written."""
        if self._judged is None:
            return []
        if code == "rules_invalid":
            self._refused = sha256(self._judged[0]).digest()
        self.failed()
        return [Log("rules_refused", (("code", code),))]

    def _judge(self, document: bytes) -> list[Effect]:
        try:
            rules = self._rules.judge(document)
        except ProtocolError as error:
            self._refused = sha256(document).digest()
            self.failed()
            fields = (("code", error.code), ("reason", error.message))
            return [Log("rules_refused", fields)]
        self._judged = (document, rules)
        return [KeepRules(document, rules)]

    def _question(self) -> GetPart:
        return GetPart(what=WHAT, key=NO_KEY, offset=len(self._got))


def _content(rules: NetworkRules | None) -> tuple[object, ...]:
    """What the contract says in a version; the block it was read at does not matter."""
    assert rules is not None
    return rules.open, frozenset((one.model, one.allowed) for one in rules.models), rules.moderation
