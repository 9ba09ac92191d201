"""The exact class, format by format: bit equality by the road each allows, and by no other.

A road that does not hold for a model's format differs in every fourth logit, in eight of its layers
as in thirty; for an adapter of floats in one of a hundred, and in few layers in none. So formats
are tried on a shallow model, adapters on the whole.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType as Kind

from assay_node.engine.profiles import FAST_SPLIT, FLASH, PLAIN, Profile
from assay_node.engine.quantize import requantize
from lora_cases import write_adapter
from model_files import shallow_model, whole_model

pytestmark = [pytest.mark.model, pytest.mark.slow]

needs_plain = pytest.mark.skipif(
    not PLAIN.available, reason="scripts/build_engine.sh exact was not run"
)
ROADS = [
    pytest.param("Q8_0", FLASH),
    pytest.param("Q4_0", FLASH),
    pytest.param("Q4_1", FLASH),
    pytest.param("Q4_K_M", PLAIN, marks=needs_plain),
    pytest.param("F16", PLAIN, marks=needs_plain),
]


LAYERS = 8


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shallow_model(tmp_path_factory.mktemp("formats") / "Q4_1.gguf", LAYERS)


def _in_format(model: Path, kind: str) -> Path:
    """`model`, a file named for its format, in another."""
    file = model.with_name(f"{kind}.gguf")
    if not file.is_file():
        requantize(model, file, kind)
    return file


def _check(file: Path, profile: Profile, *adapters: Path, sequences: int) -> dict[str, Any]:
    """The self-check, short, in a process of its own: each road has its library. Prompts of
    5, 40, 75 and 130 tokens, as many as `sequences`; a chunk is 48 (flash) or 128 (plain)."""
    command = [sys.executable, "-m", "assay_node.engine.selfcheck", str(file), "--no-rates"]
    command += ["--profile", json.dumps(profile.packed()), "--sequences", str(sequences)]
    command += ["--tokens", "6", *(f"--adapter={adapter}" for adapter in adapters)]
    done = subprocess.run(
        command, env=profile.environment(), capture_output=True, timeout=300, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["tokens"] > 40
    return found


@pytest.mark.parametrize(("kind", "road"), ROADS)
def test_a_format_is_exact_by_its_road(shallow: Path, kind: str, road: Profile) -> None:
    found = _check(_in_format(shallow, kind), road, sequences=4)
    assert (found["tokens_differing"], found["logits_differing"]) == (0, 0), found
    assert found["preemptions"] > found["restores"] > 0, "both ways back were to be checked"
    assert found["drafted"] > found["accepted"] > 0, "right and wrong drafts were to be checked"


def test_the_fast_profile_under_the_exact_name_is_found_out(shallow: Path) -> None:
    as_fast = {"chunk": FAST_SPLIT.chunk, "total": FAST_SPLIT.total}
    posing = replace(FLASH, **as_fast, replay_chunk=FAST_SPLIT.replay_chunk)
    assert _check(_in_format(shallow, "Q4_0"), posing, sequences=4)["logits_differing"] > 0


def test_the_flash_road_is_not_exact_for_a_k_quant(shallow: Path) -> None:
    assert _check(_in_format(shallow, "Q4_K_M"), FLASH, sequences=2)["logits_differing"] > 0


ADAPTER_ROADS = [
    pytest.param(Kind.Q8_0, FLASH, 2),
    pytest.param(Kind.F16, PLAIN, 2, marks=needs_plain),
    pytest.param(Kind.F32, PLAIN, 1, marks=needs_plain),  # the slowest of all
]


@pytest.mark.parametrize(("kind", "road", "count"), ADAPTER_ROADS)
def test_an_adapter_is_exact_by_the_road_of_its_format(
    tmp_path: Path, kind: Kind, road: Profile, count: int
) -> None:
    adapters = [write_adapter(tmp_path / str(n), n, kind) for n in range(1, count + 1)]
    found = _check(whole_model(), road, *adapters, sequences=3)
    assert (found["tokens_differing"], found["logits_differing"]) == (0, 0), found


def test_the_flash_road_is_not_exact_for_an_adapter_of_floats(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "floats", 1, Kind.F16)
    assert _check(whole_model(), FLASH, adapter, sequences=2)["logits_differing"] > 0
