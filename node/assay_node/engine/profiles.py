"""How an engine computes: the settings that change the bits of a logit, or their price.

"exact" promises that decoding and the prefill of an audit give the same bits. Two roads lead there,
and which of them holds for a model on a machine is measured (trials.py), never looked up:

- "fa-split48": flash attention, one KV stream per sequence and at most 48 tokens of a sequence in
  one decode, so that every kernel works row by row. Cheap; does not hold for every format. With the
  library of llama-cpp-python, or, for "exact-native", with the portable one's kernels for this
  processor: quicker, and another class, as the instruction set is in its id.
- "plain": a library without the kernels that depend on the number of rows (library.py), no flash
  attention. Holds for every format tried; prompts are slower.

"fast" promises nothing about bits.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from assay_node.engine import library
from assay_protocol.errors import AssayError

LIBRARY_VARIABLE: Final = "LLAMA_CPP_LIB_PATH"
TILED_VARIABLE: Final = "GGML_CPU_TILED_MM"
PORTABLE: Final = "portable"  # the build of library.py that has variants


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One way to compute. Sizes in tokens."""

    road: str  # its name in the class id
    library: str = ""  # a build of library.py; empty: the one llama-cpp-python loads by itself
    variant: str = ""  # of the portable library; empty: the best by what the processor says it has
    flash: bool = True
    unified: bool = False  # one KV memory for all sequences, or one stream for each
    repack: bool = True  # weights rearranged for this CPU's kernels
    tiled: bool = True  # K-quants' prefill in tiles
    chunk: int  # prompt tokens of one sequence in one decode
    total: int  # prompt tokens, of all sequences together, in one decode
    replay_chunk: int
    kv: str = "f16"
    proved: bool = False  # decode equalled replay here, with this model (trials.py)

    @property
    def available(self) -> bool:
        """Whether its library is on this machine."""
        return not self.library or library.installed(self.library) is not None

    def environment(self) -> dict[str, str]:
        """What the worker's environment must hold before it loads the library.

        Raises AssayError("engine_missing") if the library was not built.
        """
        environment = dict(os.environ)
        if self.library:
            place = library.installed(self.library)
            if place is None:
                raise AssayError(
                    "engine_missing", f"build it: scripts/build_engine.sh {self.library}"
                )
            environment[LIBRARY_VARIABLE] = str(place)
        if not self.tiled:
            environment[TILED_VARIABLE] = "0"
        return environment

    def packed(self) -> list[Any]:
        """Plain values in the order of the fields, for a pipe or a key."""
        return list(dataclasses.astuple(self))

    def named(self, *, commit: str, device: str, quant: str) -> str:
        """The numerics class: two engines of one class ending in /E compute the same bits."""
        kind = "E" if self.proved else "F"
        return f"llama.cpp/{commit}/{device}/{self.road}/kv-{self.kv}/{quant}/{kind}"


def unpack(values: Sequence[Any]) -> Profile:
    """What `Profile.packed` gave."""
    names = [field.name for field in dataclasses.fields(Profile)]
    return Profile(**dict(zip(names, values, strict=True)))


def claim(class_id: str, *, proved: bool) -> str:
    """The class of the same engine once a trial has said whether its bits are always equal."""
    return class_id.rpartition("/")[0] + ("/E" if proved else "/F")


def library_folder() -> Path | None:
    """The folder LLAMA_CPP_LIB_PATH names in this process, if it does."""
    named = os.environ.get(LIBRARY_VARIABLE)
    return Path(named) if named else None


FLASH: Final = Profile(road="fa-split48", chunk=48, total=144, replay_chunk=32)
PLAIN: Final = Profile(
    road="plain",
    library="exact",
    flash=False,
    repack=False,
    tiled=False,
    chunk=128,
    total=128,
    replay_chunk=128,
)
FAST_SPLIT: Final = Profile(
    road="fast-split256", library=PORTABLE, chunk=256, total=256, replay_chunk=256
)
FAST_UNIFIED: Final = Profile(
    road="fast-unified256", library=PORTABLE, unified=True, chunk=256, total=256, replay_chunk=256
)

FLASH_PORTABLE: Final = dataclasses.replace(FLASH, library=PORTABLE)

# Variants of the portable library to try, in turn, where the one it chooses for itself dies: some
# virtual machines promise AMX and do not have it.
VARIANTS: Final = ("zen4", "icelake", "alderlake", "haswell", "x64")

# Groups in order of preference: of the first group that serves the quickest is taken. "exact" keeps
# to one instruction set, so that all machines of an architecture can compare bits with each other.
CANDIDATES: Final[dict[str, tuple[tuple[Profile, ...], ...]]] = {
    "exact": ((FLASH,), (PLAIN,)),
    "exact-native": ((FLASH, FLASH_PORTABLE), (PLAIN,)),
    "fast": ((FAST_SPLIT, FAST_UNIFIED),),
}
