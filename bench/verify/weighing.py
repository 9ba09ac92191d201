"""What audits of recorded answers say, by every check: one row for each job.

A recording holds the best logits of each position and the given token's. That is all a draw with
top-k looks at, so a row of the whole vocabulary is rebuilt from them, everything else as high as
it can have been; replay, margins and gaps are then the product's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import anchors
import conditions
from assay_protocol import edges, filters, margins, sampling, sketches
from assay_protocol.limits import SKETCH_BYTES
from assay_protocol.sampling import replay
from assay_protocol.sketches import gap_code, leaf_distances
from noted import Noted
from recordings import BLOCK, Arrays, Recordings, jobs_of

_UNKNOWN: Final = -1  # of TOPLOC, where its package is missing


@dataclass(frozen=True, slots=True)
class Weighed:
    """Arrays by job, and by token or leaf where there are two dimensions."""

    wrong: NDArray[np.bool_]  # [jobs, tokens]: not the token the auditor draws
    margins: NDArray[np.float64]  # [jobs, tokens], logits
    gaps: NDArray[np.uint8]  # [jobs, tokens], codes
    distances: NDArray[np.float64]  # [jobs, leaves]
    equal: NDArray[np.bool_]  # [jobs]: all bits of the drawn tokens' logits
    difr: NDArray[np.float64]  # [jobs, tokens], clipped
    gonka: NDArray[np.float64]  # [jobs]
    toploc: NDArray[np.int8]  # [jobs]: 1 fails, 0 passes

    @property
    def jobs(self) -> int:
        return len(self.equal)

    def some(self, rows: NDArray[Any] | slice) -> Weighed:
        return Weighed(*(getattr(self, field.name)[rows] for field in fields(self)))

    def noted(self) -> Noted:
        return Noted(self.gaps, self.wrong, self.distances, self.margins.max(axis=1))


def joined(parts: Sequence[Weighed]) -> Weighed:
    names = [field.name for field in fields(Weighed)]
    return Weighed(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def weighed(recordings: Recordings, name: str, auditor: str, blocks: int) -> Weighed:
    """`auditor`'s audits of the first blocks of the provider named; kept beside the recordings."""
    return joined([_block(recordings, name, auditor, block) for block in range(blocks)])


def _block(recordings: Recordings, name: str, auditor: str, block: int) -> Weighed:
    stem = f"{name}-{auditor}-{_code_digest()}-{block:02}.npz".replace(" ", "_")
    kept = recordings.folder / "weighed" / stem
    if kept.is_file():
        loaded = np.load(kept)
        return Weighed(**{field.name: loaded[field.name] for field in fields(Weighed)})
    theirs = recordings.provider(name, block)
    ours = recordings.auditor(name, auditor, block)
    found = _weigh(theirs, ours, jobs_of(block), recordings.n_vocab)
    kept.parent.mkdir(exist_ok=True)
    np.savez_compressed(kept, **asdict(found))
    return found


def _weigh(theirs: Arrays, ours: Arrays, jobs: list[int], n_vocab: int) -> Weighed:
    rows: list[dict[str, Any]] = []
    for row, job in enumerate(jobs):
        mine = {name: values[row] for name, values in ours.items()}
        other = {name: values[row] for name, values in theirs.items()}
        tokens = [int(token) for token in other["tokens"]]
        rows.append(_tokens(mine, tokens, conditions.seed(job), n_vocab) | _values(other, mine))
    return Weighed(
        **{field.name: np.array([one[field.name] for one in rows]) for field in fields(Weighed)}
    )


def _tokens(
    mine: dict[str, NDArray[Any]], tokens: list[int], seed: bytes, n_vocab: int
) -> dict[str, Any]:
    """What depends on which tokens were drawn."""
    positions = np.arange(len(tokens))
    logits = np.repeat(mine["logits"][:, -1:], n_vocab, axis=1)
    np.put_along_axis(logits, mine["best"].astype(np.int64), mine["logits"], axis=1)
    logits[positions, tokens] = mine["raw"]
    sampler = conditions.SAMPLER
    found = replay(logits, tokens, sampler, seed, 0)
    return {
        "wrong": np.array(found.drawn) != tokens,
        "margins": np.array(found.margins),
        "gaps": np.array([gap_code(gap) for gap in found.gaps], np.uint8),
        "difr": [
            anchors.difr_margin(logits[at], tokens[at], found.drawn[at], sampler, seed, at)
            for at in range(len(tokens))
        ],
    }


def _values(other: dict[str, NDArray[Any]], mine: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """What compares computed values."""
    failed = anchors.toploc_fails(other["hidden"], mine["hidden"])
    assert other["sketches"].shape[-1] == SKETCH_BYTES
    return {
        "distances": leaf_distances(other["sketches"].tobytes(), mine["sketches"].tobytes()),
        "equal": bool((other["raw"].view(np.uint32) == mine["raw"].view(np.uint32)).all()),
        "gonka": anchors.gonka_distance(_logprobs(other), _logprobs(mine)),
        "toploc": np.int8(_UNKNOWN if failed is None else failed),
    }


def _logprobs(one: dict[str, NDArray[Any]]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    return one["best"], one["logits"].astype(np.float64) - one["total"][:, None]


def _code_digest() -> str:
    """Of the modules that decide what is in a `Weighed`."""
    state = hashlib.sha256(f"{BLOCK} {anchors.has_toploc()}".encode())
    for module in (anchors, edges, filters, margins, sampling, sketches):
        assert module.__file__ is not None
        state.update(Path(module.__file__).read_bytes())
    return state.hexdigest()[:8]
