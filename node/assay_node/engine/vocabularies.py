"""Vocabularies without weights and chat templates out of llama.cpp's sources, for tests.

    python -m assay_node.engine.vocabularies [--source ARCHIVE]

llama.cpp carries them to test itself with. Ours are compared with it on the same files. They are
kept in the cache beside the builds of the library, and fetched only if they are not there; nothing
is compiled. Nothing but tests reads them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from assay_node.engine.library import VERSION, download_source, engines, unpack_source
from assay_protocol.errors import AssayError

COMPLETE: Final = "complete"  # written last
_KEPT: Final = ("ggml-vocab-*.gguf", "ggml-vocab-*.gguf.inp", "templates/*.jinja")


def main(argv: list[str] | None = None) -> int:
    """Print the folder, fetching what it holds if it is missing."""
    parser = argparse.ArgumentParser(prog="assay_node.engine.vocabularies", description=__doc__)
    parser.add_argument("--source", type=Path, help="llama-cpp-python's sdist, if it is here")
    given = parser.parse_args(argv)
    try:
        print(fetch(given.source))
    except AssayError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def folder() -> Path:
    """Where they are kept, whether or not they are there."""
    return engines() / f"vocabularies-{VERSION}"


def installed() -> Path | None:
    """The folder, or None if they were never fetched here."""
    return folder() if (folder() / COMPLETE).is_file() else None


def fetch(source: Path | None = None) -> Path:
    """The folder, filled if it was not; it appears complete.

    Raises AssayError("engine_missing") if the sources cannot be had.
    """
    if (place := installed()) is not None:
        return place
    place = folder()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".vocabularies-", dir=place.parent) as scratch:
        work = Path(scratch)
        tree = unpack_source(source or download_source(work), work / "source")
        fresh = work / "vocabularies"
        for pattern in _KEPT:
            for path in (tree / "models").glob(pattern):
                target = fresh / path.relative_to(tree / "models")
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
        (fresh / COMPLETE).touch()
        try:
            fresh.rename(place)
        except OSError:  # another process was faster, and what it kept is as good
            if installed() is None:
                raise
    return place


if __name__ == "__main__":
    sys.exit(main())
