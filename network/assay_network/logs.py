"""Logs are events with fields (structlog) on the standard library's "assay" logger.

A library must not print: until a service calls `configure_logs`, events below warning go nowhere
and the application's own logging settings decide about the rest. Prompts, tokens and keys are
never fields.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog

_ROOT = "assay"
_SHARED: list[Any] = [
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def get_logger(name: str) -> Any:
    """A logger of one part of the system: `log.info("event_name", field=value)`."""
    return structlog.wrap_logger(
        logging.getLogger(f"{_ROOT}.{name}"),
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
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
