"""File descriptors: every peer costs one, and the usual soft limit of 1,024 is soon reached."""

from __future__ import annotations

from assay_network.logs import get_logger

log = get_logger("descriptors")


def raise_descriptor_limit() -> None:
    """Take the hard limit as the soft one; for services, once, at start. Where there is no such
    limit (not a POSIX system) nothing is done."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.warning("descriptor_limit_kept", soft=soft, reason=str(error))


def descriptor_limit() -> int | None:
    """How many the process may have open; None where there is no such limit."""
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
