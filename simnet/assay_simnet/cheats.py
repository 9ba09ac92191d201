"""Who breaks the rules at level "fast", by name. Docs and scenarios use these names.

A cheat on answers is found as a recorded answer of it was found (evidence.py). The adversaries of
docs/adversaries.md, which compute their cheats with a language of their own, are behaviours/ of the
small world; these are the ones whose evidence was recorded, and those that only talk otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from assay_protocol.messages import OpenLeaves, TranscriptRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Cheat:
    """One behaviour. `saves`: the share of an answer's compute that it does not spend."""

    does: str
    condition: str = ""  # how its cheated answers are made (evidence.py); "": honestly
    saves: float = 0.0
    audits: str = "honestly"  # honestly | unread | grudging | for friends | against others
    hides: type | None = None  # the request about a cheated answer that it does not answer
    says_lost: bool = False  # ... or answers that it lost it
    two_receipts: bool = False  # signs a second receipt for tickets it cheats on
    only_active: bool = False  # cheats only while its jobs are drawn by the lottery
    of_clients: bool = False
    buys: bool = False  # its owner has a client, too, which buys from it (fast_wash.py)

    @property
    def harms(self) -> bool:
        """Whether its jobs are not what was promised, so that paying them is a fraud."""
        return bool(self.condition)

    @property
    def counted(self) -> bool:
        """Whether level "epochs" can count it: what it does shows in how its jobs end."""
        answers = self.harms or self.two_receipts
        alone = not self.of_clients and not self.buys
        return answers and alone and self.audits in ("honestly", "for friends")


class Buyer(Protocol):
    """The client of a node's own owner, who buys from it."""

    @property
    def armed(self) -> bool:
        """Whether strangers are to be cheated from now on."""
        ...

    def bought(self, ticket: bytes) -> bool:
        """Whether the job is its own."""
        ...


BEHAVIOURS: Final[dict[str, Cheat]] = {
    "lazy": Cheat(does="runs no model: makes answers up", condition="made_up", saves=1.0),
    "layer_skip": Cheat(does="leaves out 3 layers", condition="3 layers removed", saves=0.1),
    "quant_q2": Cheat(does="serves Q2_K for Q8_0", condition="Q2_K", saves=0.6),
    "quant_q4": Cheat(does="serves Q4_K_M for Q8_0", condition="Q4_K_M", saves=0.4),
    "kv_q4": Cheat(does="keeps its cache in 4 bits", condition="KV cache q4_0", saves=0.1),
    "wrong_seed": Cheat(does="draws by a seed of its own", condition="wrong seed"),
    "hotter": Cheat(does="draws at temperature 0.9 for 0.8", condition="temperature 0.9"),
    "prompt_drop": Cheat(does="drops the system prompt", condition="no system prompt", saves=0.1),
    "prefill_forger": Cheat(
        does="writes with Q4_0, commits to the declared model",
        condition="prefill forger",
        saves=0.3,
    ),
    "ring": Cheat(
        does="makes answers up, and calls its friends' answers right",
        condition="made_up",
        saves=1.0,
        audits="for friends",
    ),
    "framing_ring": Cheat(
        does="serves honestly; as auditors, its members agree on the same made-up finding",
        audits="against others",
    ),
    "traitor": Cheat(
        does="serves Q2_K once its jobs are drawn rarely",
        condition="Q2_K",
        saves=0.6,
        only_active=True,
    ),
    "withholder": Cheat(
        does="makes answers up while rarely drawn, and shows no leaves of those",
        condition="made_up",
        saves=1.0,
        hides=OpenLeaves,
        only_active=True,
    ),
    "forgetful": Cheat(
        does="makes answers up while rarely drawn, and says it lost those",
        condition="made_up",
        saves=1.0,
        hides=TranscriptRequest,
        says_lost=True,
        only_active=True,
    ),
    "equivocator": Cheat(does="signs two receipts for one ticket", two_receipts=True),
    "lazy_auditor": Cheat(does="replays nothing and calls every answer right", audits="unread"),
    "griefing_auditor": Cheat(does="calls every answer wrong", audits="grudging"),
    "wash_trader": Cheat(
        does="buys a record and escrow from itself, then makes strangers' answers up",
        condition="made_up",
        saves=1.0,
        buys=True,
    ),
    "free_rider": Cheat(
        does="takes answers, acknowledges nothing, hands in no receipt", of_clients=True
    ),
    "hoarder": Cheat(does="takes tickets and uses none", of_clients=True),
}
