"""What a request that is not served gets: a status, a stable string code, and one sentence.

One table says which HTTP status each code of the network is; nothing else decides it. `code` is
what clients branch on: OpenAI's own word where they have one, else the network's. Texts of peers
are passed on only for codes that speak about the request.
"""

from __future__ import annotations

from typing import Any, Final

from assay_protocol.errors import CODES, AssayError

RETRY_SECONDS: Final = 1  # where nobody said how long to wait
CLIENT_GONE: Final = 499  # never sent: the connection is closed

# (status, code) by the network's code; what is not listed is 502: somebody else's fault.
_STATUS: Final[dict[str, tuple[int, str]]] = {
    "malformed": (400, "invalid_request"),
    "oversized": (413, "request_too_large"),
    "prompt_too_long": (400, "context_length_exceeded"),
    "model_unknown": (404, "model_not_found"),
    "model_denied": (403, "model_denied"),
    "prompt_refused": (400, "content_filter"),
    "sampler_refused": (400, "invalid_value"),
    "grammar_refused": (400, "grammar_refused"),
    "task_refused": (400, "task_refused"),
    "not_finite": (400, "not_finite"),
    "image_refused": (400, "invalid_image"),
    "region_unserved": (400, "region_unserved"),
    "verify_refused": (400, "verify_refused"),
    "forbidden": (403, "forbidden"),
    "insufficient_credit": (402, "insufficient_credit"),
    "rate_limited": (429, "rate_limit_exceeded"),
    "busy": (503, "busy"),
    "no_capacity": (503, "no_capacity"),
    "draining": (503, "draining"),
    "storage_failed": (503, "storage_failed"),
    "chain_unavailable": (503, "chain_unavailable"),
    "peer_gone": (503, "peer_gone"),
    "engine_failed": (503, "engine_failed"),
    "timeout": (504, "timeout"),
    "slow_reader": (408, "slow_reader"),
    "cancelled": (CLIENT_GONE, "cancelled"),
    "audit_failed": (502, "audit_failed"),
    "audit_missing": (504, "audit_missing"),
    "answers_differ": (502, "answers_differ"),
    "internal": (502, "internal"),
}
_ABOUT_THE_REQUEST: Final = frozenset(
    {
        "malformed",
        "prompt_too_long",
        "model_unknown",
        "sampler_refused",
        "grammar_refused",
        "task_refused",
        "image_refused",
    }
)
_OPENAI_TYPES: Final = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Refusal(Exception):
    """A request that gets no answer. `param` names the field at fault, `retry` is in seconds."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry: int | None = None,
        charged: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry = RETRY_SECONDS if retry is None and status in (429, 503) else retry
        self.charged = charged  # a retry would be paid again

    def headers(self) -> dict[str, str]:
        """What clients' retry logic reads."""
        found = {} if self.retry is None else {"retry-after": str(self.retry)}
        if self.charged or self.status == 402:
            found["x-should-retry"] = "false"
        return found

    def openai(self) -> dict[str, Any]:
        kind = _OPENAI_TYPES.get(self.status)
        if kind is None:
            kind = "invalid_request_error" if self.status < 500 else "api_error"
        body = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": body}

    def anthropic(self) -> dict[str, Any]:
        kind = _ANTHROPIC_TYPES.get(self.status)
        if kind is None:
            kind = "invalid_request_error" if self.status < 500 else "api_error"
        named = self.param is None or self.param in self.message  # there is no field for it
        message = self.message if named else f"{self.param}: {self.message}"
        body = {"type": kind, "message": message, "code": self.code}
        return {"type": "error", "error": body, "request_id": None}

    def body(self, path: str) -> dict[str, Any]:
        """The error as clients of the API at `path` know it."""
        return self.anthropic() if path.startswith("/v1/messages") else self.openai()


def invalid(param: str, message: str, code: str = "invalid_value") -> Refusal:
    """The request's own field is wrong."""
    return Refusal(400, code, message, param=param)


def missing(param: str) -> Refusal:
    """A field that must be there is not."""
    return Refusal(400, "missing_required_parameter", f"{param} is missing", param=param)


def unsupported(param: str, message: str) -> Refusal:
    """A field that means something the network cannot do; doing without it would be a lie."""
    return Refusal(400, "unsupported_parameter", message, param=param)


def fault() -> Refusal:
    """What is told of a fault of ours; the log names its kind."""
    return Refusal(500, "internal", "a fault of the gateway; see its log")


def refusal_of(error: AssayError, *, charged: bool = False) -> Refusal:
    """The network's failure as the caller of the gateway gets it."""
    status, code = _STATUS.get(error.code, (502, error.code))
    message = error.message if error.code in _ABOUT_THE_REQUEST else CODES[error.code]
    retry = None if error.retry_after_ms is None else -(-error.retry_after_ms // 1000)
    return Refusal(status, code, message, retry=retry, charged=charged)
