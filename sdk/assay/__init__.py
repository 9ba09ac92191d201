"""The Assay SDK: `from assay import Client, AsyncClient`.

Names are imported when first used, so that `import assay` works, fast, on the base install: the
direct clients need the `p2p` extra, verification and the gateway client do not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from assay.answers import AnswersDiffer as AnswersDiffer
    from assay.answers import Completion as Completion
    from assay.answers import Delta as Delta
    from assay.answers import JobFailed as JobFailed
    from assay.answers import NotVerified as NotVerified
    from assay.answers import Usage as Usage
    from assay.client import Client as Client
    from assay.direct import AsyncClient as AsyncClient
    from assay.events import JobLimits as JobLimits
    from assay.events import PromptTold as PromptTold
    from assay.events import Resumed as Resumed
    from assay.http import GatewayClient as GatewayClient
    from assay.http import GatewayError as GatewayError
    from assay.pictures import image_part as image_part
    from assay.records import ReceiptRecord as ReceiptRecord
    from assay.records import read_records as read_records
    from assay.steps import Verification as Verification
    from assay.verdicts import Verdict as Verdict
    from assay.verdicts import check_record as check_record
    from assay.verify import replay as replay
    from assay.verify import verify_answer as verify_answer
    from assay_protocol.errors import AssayError as AssayError

_HOME: Final = {
    "AnswersDiffer": "assay.answers",
    "AssayError": "assay_protocol.errors",
    "AsyncClient": "assay.direct",
    "Client": "assay.client",
    "Completion": "assay.answers",
    "Delta": "assay.answers",
    "GatewayClient": "assay.http",
    "GatewayError": "assay.http",
    "JobFailed": "assay.answers",
    "JobLimits": "assay.events",
    "NotVerified": "assay.answers",
    "PromptTold": "assay.events",
    "ReceiptRecord": "assay.records",
    "Resumed": "assay.events",
    "Usage": "assay.answers",
    "Verdict": "assay.verdicts",
    "Verification": "assay.steps",
    "check_record": "assay.verdicts",
    "image_part": "assay.pictures",
    "read_records": "assay.records",
    "replay": "assay.verify",
    "verify_answer": "assay.verify",
}
__all__ = sorted(_HOME)  # noqa: PLE0605  # a list, made from the table above


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'assay' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
