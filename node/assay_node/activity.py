"""Is somebody at this machine? What Linux shows of it without asking a desktop.

A terminal's device notes when its user last typed (as `w` shows). A graphical session's keyboard
shows nowhere that a service may look, so where one is active nothing is claimed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_TERMINALS: Final = (("/dev/pts", "[0-9]*"), ("/dev", "tty[0-9]*"))
_SESSIONS: Final = Path("/run/systemd/sessions")
_GRAPHICAL: Final = frozenset({"TYPE=x11", "TYPE=wayland", "TYPE=mir"})
SESSION_BYTES_MAX: Final = 4_096


def idle_seconds(now: float) -> int | None:
    """Seconds since anybody typed at a terminal here; None if that cannot be known.

    `now` in seconds since the epoch.
    """
    if graphical_session(_SESSIONS):
        return None
    times = []
    for folder, pattern in _TERMINALS:
        for device in Path(folder).glob(pattern):
            try:
                times.append(device.stat().st_atime)
            except OSError:
                continue  # it was closed meanwhile
    return max(0, int(now - max(times))) if times else None


def graphical_session(sessions: Path) -> bool:
    """Whether logind knows an active session with a desktop."""
    try:
        files = list(sessions.iterdir())
    except OSError:
        return False
    for file in files:
        try:
            with file.open() as text:
                lines = set(text.read(SESSION_BYTES_MAX).splitlines())
        except (OSError, UnicodeDecodeError):
            continue
        if "ACTIVE=1" in lines and lines & _GRAPHICAL:
            return True
    return False
