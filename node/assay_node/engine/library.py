"""Builds of llama.cpp's library beside the one that came with llama-cpp-python, and where they lie.

    python -m assay_node.engine.library build [portable|exact|server|all]

The bits of every logit depend on how the library was compiled, so a build is made in one way only,
from the same source archive as the bindings, and is known by the sha256 of its files.

- "portable": every CPU variant ggml has, chosen when it is loaded: as fast as a native build, and
  it runs on any machine of the architecture.
- "exact": none of the kernels whose result depends on how many rows are computed at once
  (llamafile's, repacked weights): the second road to the exact class (profiles.py).
- "server": llama.cpp's own server and batched benchmark with the flags of our wheel, to be compared
  with and to be served behind (not part of "all").

A worker process computes with one of them when LLAMA_CPP_LIB_PATH names its folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from assay_protocol.errors import AssayError

VERSION: Final = "0.3.36"  # of llama-cpp-python: struct layouts change between releases
COMMIT: Final = "0c1e570"  # of llama.cpp, as vendored in that release
MANIFEST: Final = "manifest.json"
BUILD_SECONDS_MAX: Final = 7_200
NICENESS: Final = 19  # owners build while they work
_SHARED_FLAGS: Final = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    "-DCMAKE_INSTALL_RPATH=$ORIGIN",  # found beside each other, wherever the folder is
    f"-DLLAMA_BUILD_COMMIT={COMMIT}",
    "-DLLAMA_BUILD_NUMBER=0",
    "-DGIT_EXE=OFF",  # a repository around the cache is not llama.cpp's
    "-DLLAMA_BUILD_COMMON=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_TOOLS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DGGML_NATIVE=OFF",
)
BUILDS: Final[dict[str, tuple[str, ...]]] = {
    "portable": ("-DGGML_BACKEND_DL=ON", "-DGGML_CPU_ALL_VARIANTS=ON"),
    "exact": ("-DGGML_LLAMAFILE=OFF", "-DGGML_CPU_REPACK=OFF"),
    "server": (
        "-DLLAMA_BUILD_COMMON=ON",  # of two settings of one flag cmake takes the last
        "-DLLAMA_BUILD_TOOLS=ON",
        "-DLLAMA_BUILD_SERVER=ON",
        "-DLLAMA_USE_PREBUILT_UI=OFF",
    ),
}
PROGRAMS: Final[dict[str, tuple[str, ...]]] = {"server": ("llama-server", "llama-batched-bench")}


def main(argv: list[str] | None = None) -> int:
    """Print the folder of every build asked for, making those that are missing."""
    parser = argparse.ArgumentParser(prog="assay_node.engine.library", description=__doc__)
    actions = parser.add_subparsers(required=True, dest="action")
    build_ = actions.add_parser("build", help="compile what is missing")
    build_.add_argument("name", choices=[*BUILDS, "all"], nargs="?", default="all")
    build_.add_argument("--jobs", type=int, default=1, help="compilers at once")
    build_.add_argument("--source", type=Path, help="llama-cpp-python's sdist, if it is here")
    given = parser.parse_args(argv)
    os.nice(NICENESS)
    try:
        every = [name for name in BUILDS if name not in PROGRAMS]
        for name in every if given.name == "all" else (given.name,):
            print(build(name, jobs=given.jobs, source=given.source), flush=True)
    except AssayError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def folder(name: str) -> Path:
    """Where the build `name` is kept, whether or not it is there."""
    assert name in BUILDS, name
    return engines() / f"{name}-{VERSION}-{platform.machine()}"


def engines() -> Path:
    """Where builds, and what is known of them, are kept for all nodes of this machine."""
    cache = Path(os.environ.get("ASSAY_CACHE") or Path.home() / ".cache" / "assay")
    return cache / "engines"


def installed(name: str) -> Path | None:
    """The folder of the build `name`, or None if it was never built here."""
    place = folder(name)
    return place if (place / MANIFEST).is_file() else None


def library_digest(place: Path) -> str:
    """sha256, hex, over the names and contents of the shared libraries in `place`.

    Raises AssayError("engine_missing") if there are none.
    """
    files = digests(place)
    if not files:
        raise AssayError("engine_missing", f"no libraries in {place}")
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def check(place: Path) -> None:
    """Raises AssayError("engine_failed") unless every file is the one that was built."""
    try:
        expected = json.loads((place / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssayError("engine_failed", f"{place} has no readable {MANIFEST}") from error
    if expected != digests(place):
        raise AssayError("engine_failed", f"files in {place} are not the ones that were built")


def build(name: str, *, jobs: int = 1, source: Path | None = None) -> Path:
    """Compile `name` if it is missing; its folder. Takes minutes; the folder appears complete.

    Raises AssayError: "engine_missing" without compiler, cmake or source, "engine_failed" if the
    build fails.
    """
    place = folder(name)
    if installed(name) is not None:
        return place
    _require_programs()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=place.parent) as scratch:
        work = Path(scratch)
        tree = unpack_source(source or download_source(work), work / "source")
        _compile(tree, work / "build", name, jobs)
        fresh = work / "libraries"
        kept = _only(PROGRAMS.get(name, ()))
        shutil.copytree(work / "build" / "bin", fresh, symlinks=True, ignore=kept)
        manifest = {"flags": [*_SHARED_FLAGS, *BUILDS[name]], "files": digests(fresh)}
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        try:
            fresh.rename(place)
        except OSError:  # another process was faster, and its build is as good
            check(place)
    return place


def _require_programs() -> None:
    missing = [name for name in ("cmake", "make", "gcc", "g++") if shutil.which(name) is None]
    if missing:
        raise AssayError("engine_missing", f"to build it, install {', '.join(missing)}")


def download_source(work: Path) -> Path:
    """The source archive of the bindings, with llama.cpp's in it, fetched into `work`.

    Raises AssayError("engine_missing").
    """
    wanted = f"llama-cpp-python=={VERSION}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(work)]
    _run([*command, "--no-binary", "llama-cpp-python", wanted], "engine_missing")
    return next(work.glob("llama_cpp_python-*.tar.gz"))


def unpack_source(archive: Path, target: Path) -> Path:
    """llama.cpp's source tree out of the sdist; raises AssayError("engine_missing")."""
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise AssayError("engine_missing", f"cannot unpack {archive}: {error}") from error
    return next(target.iterdir()) / "vendor" / "llama.cpp"


def _compile(tree: Path, target: Path, name: str, jobs: int) -> None:
    # Asserts hold file names: without this the library's sha256 would depend on the folder.
    prefix = f"-ffile-prefix-map={tree}=llama.cpp"
    flags = [f"-DCMAKE_C_FLAGS={prefix}", f"-DCMAKE_CXX_FLAGS={prefix}"]
    configure = ["cmake", "-S", str(tree), "-B", str(target), *_SHARED_FLAGS, *BUILDS[name], *flags]
    _run(configure, "engine_failed")
    command = ["cmake", "--build", str(target), "--target", *PROGRAMS.get(name, ("llama",))]
    _run([*command, "-j", str(jobs)], "engine_failed")


def _run(command: list[str], code: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=BUILD_SECONDS_MAX)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).decode("utf-8", "replace").strip()[-2_000:]
        raise AssayError(code, f"{command[0]} failed: {said}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AssayError(code, f"{command[0]}: {error}") from error


def _only(programs: tuple[str, ...]) -> Callable[[str, list[str]], list[str]]:
    """For `copytree`: leave out whatever is neither a library nor one of `programs`."""

    def others(_directory: str, names: list[str]) -> list[str]:
        kept = {name for name in names if ".so" in name or name.endswith(".dylib")}
        return [name for name in names if name not in kept.union(programs)]

    return others


def digests(place: Path) -> dict[str, str]:
    """File name to sha256, hex, of every library and program that is not a link to another."""
    found = [*place.glob("lib*"), *place.glob("llama-*")]
    files = [path for path in found if path.is_file() and not path.is_symlink()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


if __name__ == "__main__":
    sys.exit(main())
