"""The `node` command: ours for our own verbs, and Node.js for everything else.

People type `node start`. But a program named `node` in a Python environment hides Node.js from
every tool beside it (npm, pyright, playwright), which then fail without a word. So this launcher
takes a command only if its first argument is one of OWN_VERBS, and hands anything else, unchanged,
to the next `node` on PATH. A script that is named like a verb (`node start` for ./start) is run
with `node ./start`. Nothing heavy is imported before the decision: it stands before every npm call.
"""

from __future__ import annotations

import os
import sys
from typing import Final, NoReturn

OWN_VERBS: Final = frozenset(
    {
        "start",
        "status",
        "doctor",
        "drain",
        "init",
        "benchmark",
        "selfcheck",
        "keys",
        "models",
        "credit",
        "service",
    }
)
HEAD_BYTES: Final = 65_536  # of a script, in which its imports are looked for
EXIT_NOT_FOUND: Final = 127  # what a shell says for a command that does not exist


def main() -> int:
    """Entry point of the console script `node`; returns only for our own verbs or an error."""
    argv = sys.argv[1:]
    if argv and argv[0] in OWN_VERBS:
        from assay_node.cli import main as run

        return int(run(argv) or 0)
    other = next_node(sys.argv[0], os.environ.get("PATH", os.defpath))
    if other is None:
        return _explain(argv)
    _hand_over(other, argv)


def next_node(script: str, path: str) -> str | None:
    """The first executable `node` on `path` that is not `script` itself, however it is linked."""
    own = os.path.realpath(script)
    for directory in path.split(os.pathsep):
        candidate = os.path.join(directory or os.curdir, "node")
        if (
            os.path.isfile(candidate)
            and os.access(candidate, os.X_OK)
            and os.path.realpath(candidate) != own
            and not _is_ours(candidate)
        ):
            return candidate
    return None


def _is_ours(candidate: str) -> bool:
    """Whether it is this launcher installed in another environment, which would bounce back."""
    try:
        with open(candidate, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return False  # executable but not readable: surely no Python script
    return head.startswith(b"#!") and b"assay_node.launcher" in head


def _hand_over(other: str, argv: list[str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(other, [other, *argv])


def _explain(argv: list[str]) -> int:
    said = argv[0] if argv else "(nothing)"
    print(
        f"node: {said!r} is not a verb of an Assay node ({', '.join(sorted(OWN_VERBS))}),\n"
        "node: and no other program named 'node' (Node.js) is on PATH to hand it to.",
        file=sys.stderr,
    )
    return EXIT_NOT_FOUND
