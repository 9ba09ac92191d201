"""URLs that an owner writes into settings."""

from __future__ import annotations

import contextlib
from urllib.parse import SplitResult, urlsplit


def http_url(text: str) -> SplitResult | None:
    """The parts of an http or https URL with a host that can be looked up, and a port that can be
    dialed if it names one; None for anything else, and for blanks or control characters anywhere.
    What more is allowed in it (a path, a query, a user) is the caller's."""
    if any(char <= " " or char == "\x7f" for char in text):
        return None
    with contextlib.suppress(ValueError):  # brackets that hold no address, a port that is no number
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            parts.hostname.encode("idna")  # as the resolver will: labels may be empty or too long
            return parts
    return None
