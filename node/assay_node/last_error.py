"""The last thing that went wrong in a node, for its owner: a stable code, and when.

Codes are those of docs/errors.md, of the node's own doing or of the coordinator's answers; never a
text of a client. A job that is refused is no error: it is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assay_node.core import effects as do
from assay_node.core import events as on


@dataclass(slots=True)
class LastError:
    """Feed it what the runtime does."""

    code: str = ""
    at: int = 0  # microseconds since the epoch

    def observe(self, now: int, event: on.Event, effects: Sequence[do.Effect]) -> None:
        """`event` happened at `now` and `effects` are what the node wants done."""
        match event:
            case (
                on.Failed(code=code)
                | on.EngineStopped(code=code)
                | on.ReplayFailed(code=code)
                | on.ReceiptNotSaved(code=code)
                | on.RulesNotKept(code=code)
            ):
                self.code, self.at = code, now
        for effect in effects:
            match effect:
                case do.Log(event="lease_refused" | "bad_notice", fields=fields):
                    self.code, self.at = str(dict(fields)["code"]), now
