"""Answers on any link."""

from __future__ import annotations

from assay_protocol.codec import message
from assay_protocol.messages.parts import Count, Name, Text


@message(2)
class Error:
    """The answer to a request that failed. `code` is a key of errors.CODES."""

    code: Name
    detail: Text
    retry_after_ms: Count | None = None


@message(4)
class Done:
    """The answer to a request that needs no other."""
