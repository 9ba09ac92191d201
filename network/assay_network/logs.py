"""Logs are events with fields (structlog) on the standard library's "assay" logger.

A library must not print: until a service calls `configure_logs`, events below warning go nowhere
and the application's own logging settings decide about the rest. Prompts, tokens and keys are
never fields. Of a fault of ours its kind is told and where it was, never its words: a KeyError's
are the key, and that may be a piece of a prompt.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

_ROOT = "assay"
FRAMES_MAX: Final = 16  # of a fault, the innermost ones
FAULTS_MAX: Final = 8  # of a group, or of causes


def _where(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """In the place of `exc_info`: the faults by kind, each with its frames."""
    found = event.pop("exc_info", None)
    error = sys.exc_info()[1] if found is True else found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        event["exception"] = [_told(one) for one in _faults(error)[:FAULTS_MAX]]
    return event


def _faults(error: BaseException) -> list[BaseException]:
    """It, those it groups, and what each came from."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting and len(found) < FAULTS_MAX:
        one = waiting.pop(0)
        found.append(one)
        waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        if (before := one.__cause__ or one.__context__) is not None:
            waiting.append(before)
    return found


def _told(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
    places = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames]
    return " > ".join([*places, type(error).__name__])


_SHARED: list[Any] = [
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _where,
]


class _Logger(structlog.stdlib.BoundLogger):
    """The standard library's `exception` would write the fault a second time, with its words."""

    def exception(self, event: str | None = None, *args: Any, **fields: Any) -> Any:
        return self.error(event, *args, exc_info=True, **fields)


def get_logger(name: str) -> Any:
    """A logger of one part of the system: `log.info("event_name", field=value)`."""
    return structlog.wrap_logger(
        logging.getLogger(f"{_ROOT}.{name}"),
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=_Logger,
        cache_logger_on_first_use=True,
    )


def configure_logs(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Write events as JSON lines to `stream` (stderr); for services, once, at start."""
    logger = logging.getLogger(_ROOT)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False
