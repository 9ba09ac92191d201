"""Extras: what to tell a person whose install lacks the part a command needs."""

from __future__ import annotations

import sys
from typing import Final

EXIT_MISSING: Final = 2


def report_missing(program: str, extra: str, error: ModuleNotFoundError) -> int:
    """Name the extra on stderr; the exit code. A module of our own missing is our bug: raised."""
    module = (error.name or "").partition(".")[0]
    if not module or module == "assay" or module.startswith("assay_"):
        raise error
    print(f"{program}: {missing_text(extra, module)}", file=sys.stderr)
    return EXIT_MISSING


def missing_text(extra: str, module: str) -> str:
    """The sentence that names the mend."""
    return f"this needs {module!r}: pip install 'assay-network[{extra}]'"
