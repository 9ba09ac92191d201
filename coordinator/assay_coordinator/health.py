"""Whether a coordinator does its work, as far as its runtime can tell.

A fault has the name of the event that the log says it by, so that an operator finds more there.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Health:
    """What fails now, and how often something failed since the start."""

    recovering: bool = False  # a commit failed, and the tables were not read again yet
    chain_unread: bool = False
    unposted: set[object] = field(default_factory=set)  # what the chain did not take; tried again
    commit_failures: int = 0
    post_failures: int = 0

    def commit_failed(self) -> None:
        self.recovering = True
        self.commit_failures += 1

    def post_failed(self, what: object) -> None:
        self.unposted.add(what)
        self.post_failures += 1

    @property
    def faults(self) -> list[str]:
        """The names of what fails now."""
        failing = {
            "commit_failed": self.recovering,
            "chain_not_read": self.chain_unread,
            "not_posted": bool(self.unposted),
        }
        return [name for name, fails in failing.items() if fails]
