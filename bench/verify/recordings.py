"""Recorded runs on disk: made when first asked for, one file for a block of jobs.

A file's name says who computed, whom it audited, and a digest of everything that the numbers
depend on. So a run that was stopped goes on where it was, and later runs reuse it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import conditions
import models
from assay_node.engine.library import VERSION
from conditions import CLASSES, FILES, FORGER, FORGES, Provider

BLOCK: Final = 24  # jobs in one file
TOKENS: Final = 96
_RECORDER: Final = Path(__file__).with_name("recorder.py")

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file: the answers of `provider`, or what `auditor` computes for them."""

    provider: Provider
    block: int
    auditor: str = ""

    @property
    def engine(self) -> tuple[str, str, str]:
        """Class, file and KV type of the process that makes it."""
        if self.auditor:
            return self.auditor, FILES[self.auditor], "f16"
        return self.provider.runs, self.provider.file, self.provider.kv


class Recordings:
    """All files made from one model file."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.folder = models.BENCH / "verify" / source.stem
        self.folder.mkdir(parents=True, exist_ok=True)
        self.n_vocab = models.vocabulary(source)

    def make(self, wanted: Iterable[Wanted]) -> None:
        """Compute what is missing, in this order as far as one process can do it."""
        missing = [one for one in wanted if not self.path(one).is_file()]
        for engine, some in groupby(missing, lambda one: one.engine):
            self._run(engine, list(some))

    def path(self, one: Wanted) -> Path:
        about: list[object] = [VERSION, TOKENS, self.source.stem, one.provider]
        about += [one.provider.prompt(job) for job in jobs_of(one.block)[:2]]
        about += [CLASSES[one.provider.runs], CLASSES[one.auditor] if one.auditor else ""]
        digest = hashlib.sha256(repr(about).encode()).hexdigest()[:12]
        name = "-".join([one.provider.name, one.auditor or "answers", digest]).replace(" ", "_")
        return self.folder / f"{name}-{one.block:02}.npz"

    def provider(self, name: str, block: int) -> Arrays:
        """What one named in the tables answered and committed to.

        The prefill forger's tokens are those of a cheap model, all else the declared one's.
        """
        if name != FORGER:
            return self._load(Wanted(conditions.provider(name), block))
        cheap = conditions.provider(FORGES)
        tokens = self._load(Wanted(cheap, block))["tokens"]
        return self._load(Wanted(cheap, block, conditions.HONEST.runs)) | {"tokens": tokens}

    def auditor(self, name: str, auditor: str, block: int) -> Arrays:
        """What `auditor` computed for it."""
        return self._load(Wanted(_writer(name), block, auditor))

    def blocks(self, name: str, auditor: str) -> int:
        """How many blocks of these audits are there, from the first on."""
        count = 0
        while self.path(Wanted(_writer(name), count, auditor)).is_file():
            count += 1
        return count

    def _load(self, one: Wanted) -> Arrays:
        with np.load(self.path(one)) as loaded:
            return {name: loaded[name] for name in loaded.files}

    def _run(self, engine: tuple[str, str, str], some: list[Wanted]) -> None:
        kind, file, kv = engine
        work = [
            {
                "provider": one.provider.name,
                "answers": str(self.path(Wanted(one.provider, one.block))) if one.auditor else "",
                "jobs": jobs_of(one.block),
                "target": str(self.path(one)),
            }
            for one in some
        ]
        model = str(models.model_file(file, self.source))
        task = {"model": model, "class": kind, "kv": kv, "tokens": TOKENS, "work": work}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as paper:
            json.dump(task, paper)
            paper.flush()
            command = [sys.executable, str(_RECORDER), paper.name]
            subprocess.run(command, env=CLASSES[kind].environment(), check=True)


def jobs_of(block: int) -> list[int]:
    return list(range(block * BLOCK, (block + 1) * BLOCK))


def _writer(name: str) -> Provider:
    """Whose tokens they are."""
    return conditions.provider(FORGES if name == FORGER else name)
