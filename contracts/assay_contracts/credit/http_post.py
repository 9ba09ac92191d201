"""One JSON document to an HTTP server and one back, by the standard library: quick to import.

A connection is kept for the requests that follow. Whoever answers may be hostile: the answer's size
and the time for it are bounded.
"""

from __future__ import annotations

import http.client

from assay_protocol.errors import AssayError
from assay_protocol.urls import http_url

ANSWER_SECONDS = 10.0
ANSWER_BYTES_MAX = 1 << 20
_CHUNK_BYTES = 1 << 16


class Poster:
    """Posts to one URL. Raises AssayError: "timeout", "peer_gone", "oversized", or "config_invalid"
    for a URL that is none."""

    def __init__(self, url: str) -> None:
        parts = http_url(url)
        if parts is None or parts.hostname is None or not (parts.path + parts.query).isascii():
            raise AssayError("config_invalid", f"not an HTTP URL: {url[:200]!r}")
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=ANSWER_SECONDS)
        self._url, self._path = (
            url,
            (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        )

    def __call__(self, body: bytes) -> bytes:
        """The answer's body, whatever its status."""
        for again in (True, False):  # a kept connection may have been closed meanwhile
            fresh = self._connection.sock is None
            try:
                return self._exchange(body)
            except TimeoutError:
                self.close()
                raise AssayError("timeout", f"no answer from {self._url}") from None
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if fresh or not again:
                    raise AssayError("peer_gone", f"{self._url}: {error}") from None
        raise AssertionError("the second attempt returns or raises")

    def close(self) -> None:
        self._connection.close()

    def _exchange(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", self._path, body, headers)
        answer = bytearray()
        with self._connection.getresponse() as response:
            while chunk := response.read(_CHUNK_BYTES):
                answer += chunk
                if len(answer) > ANSWER_BYTES_MAX:
                    self.close()
                    raise AssayError("oversized", "the node's answer is larger than 1 MiB")
        return bytes(answer)
