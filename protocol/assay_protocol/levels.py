"""How an answer is verified, for command lines that know the names before the messages load.

Never shown to auditors; by the lottery; audited before it counts as final; drawn twice, on nodes of
two operators (docs/verification.md 6).
"""

from __future__ import annotations

from typing import Final

VERIFY_LEVELS: Final = ("none", "sample", "now", "quorum")
