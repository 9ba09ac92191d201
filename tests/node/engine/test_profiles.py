"""Profiles: what travels, what is claimed, and that only a passed trial is a claim."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType as Kind

from assay_node.engine import library, trials
from assay_node.engine.frames import Deframer
from assay_node.engine.profiles import (
    CANDIDATES,
    FAST_SPLIT,
    FAST_UNIFIED,
    FLASH,
    FLASH_PORTABLE,
    LIBRARY_VARIABLE,
    PLAIN,
    PORTABLE,
    TILED_VARIABLE,
    Profile,
    unpack,
)
from assay_node.engine.trials import FAILED, Trial, choose
from assay_node.engine.wire import Opening, read_opening
from assay_protocol.classes import is_exact
from assay_protocol.errors import AssayError
from lora_cases import write_adapter

MODEL = Path("model.gguf")
GOOD = Trial(True, 100, 0, 200.0, 50.0)
EVERY = [one for groups in CANDIDATES.values() for group in groups for one in group]
OFF_BY_A_BIT = Trial(False, 100, 1, 200.0, 50.0)


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both libraries "built", and the one of the bindings, all of them made of nothing."""
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path))
    monkeypatch.setenv(LIBRARY_VARIABLE, str(tmp_path / "wheel"))
    for place in (tmp_path / "wheel", *map(library.folder, library.BUILDS)):
        place.mkdir(parents=True)
        (place / "libllama.so").write_bytes(str(place).encode())
    for name in library.BUILDS:
        place = library.folder(name)
        files = library.digests(place)
        (place / library.MANIFEST).write_text(json.dumps({"files": files}))
    return tmp_path


def _try(monkeypatch: pytest.MonkeyPatch, results: dict[str, Trial]) -> list[str]:
    """Let trials find `results`, by road; the roads tried, less those of the portable library."""
    tried: list[str] = []

    def run(_path: Path, profile: Profile, _threads: int, *_beside: object) -> Trial:
        if profile.library != PORTABLE:
            tried.append(profile.road)
        return results[profile.road]

    monkeypatch.setattr(trials, "run_trial", run)
    return tried


def _choose(directory: Path, name: str) -> Profile:
    return choose(MODEL, bytes(32), name, threads=1, directory=directory)


@pytest.mark.parametrize("profile", EVERY)
def test_a_profile_arrives_in_the_worker_as_it_was_sent(profile: Profile) -> None:
    proved, adapters = replace(profile, proved=True), (("b", b"b" * 32), ("c", b"c" * 32))
    opening = Opening("a", bytes(32), 2, 512, 1, proved, adapters=adapters)
    (fields,) = Deframer().feed(opening.frame())
    assert read_opening(fields) == opening


def test_only_what_was_proved_is_called_exact() -> None:
    about: dict[str, Any] = {"commit": "c", "device": "cpu-avx2", "quant": "q8_0"}
    assert not is_exact(FLASH.named(**about))
    proved = replace(PLAIN, proved=True).named(**about)
    assert is_exact(proved)
    assert proved == "llama.cpp/c/cpu-avx2/plain/kv-f16/q8_0/E"
    assert not any(is_exact(profile.named(**about)) for profile in CANDIDATES["fast"][0])


def test_the_first_road_that_proves_exact_is_taken(
    engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _try(monkeypatch, {"fa-split48": GOOD, "plain": GOOD})
    assert _choose(engines, "exact") == replace(FLASH, proved=True)


@pytest.mark.parametrize("quick", [GOOD, OFF_BY_A_BIT, FAILED])
def test_the_quicker_kernels_are_taken_if_they_prove_exact(
    engines: Path, monkeypatch: pytest.MonkeyPatch, quick: Trial
) -> None:
    def run(_path: Path, profile: Profile, _threads: int, *_beside: object) -> Trial:
        if (profile.library, profile.variant) == (PORTABLE, "icelake"):
            return replace(quick, decode_tps=2 * quick.decode_tps)
        return FAILED if profile.library == PORTABLE else GOOD

    monkeypatch.setattr(trials, "run_trial", run)
    chosen = replace(FLASH_PORTABLE, variant="icelake") if quick.exact else FLASH
    assert _choose(engines, "exact-native") == replace(chosen, proved=True)
    assert _choose(engines, "exact") == replace(FLASH, proved=True), "the class all can compare"


def test_one_bit_of_difference_sends_to_the_other_road(
    engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _try(monkeypatch, {"fa-split48": OFF_BY_A_BIT, "plain": GOOD})
    assert _choose(engines, "exact") == replace(PLAIN, proved=True)


@pytest.mark.parametrize("other", [OFF_BY_A_BIT, FAILED])
def test_where_no_road_leads_there_nothing_is_claimed(
    engines: Path, monkeypatch: pytest.MonkeyPatch, other: Trial
) -> None:
    _try(monkeypatch, {"fa-split48": OFF_BY_A_BIT, "plain": other})
    assert _choose(engines, "exact") == FLASH
    assert not FLASH.proved


def test_fast_is_the_faster_one_and_never_claims(
    engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quicker = replace(GOOD, decode_tps=90.0)
    _try(monkeypatch, {FAST_SPLIT.road: GOOD, FAST_UNIFIED.road: quicker})
    assert _choose(engines, "fast") == FAST_UNIFIED


def test_a_fast_profile_whose_trial_dies_is_not_taken(
    engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _try(monkeypatch, {FAST_SPLIT.road: GOOD, FAST_UNIFIED.road: FAILED})
    assert choose(MODEL, b"\1" * 32, "fast", threads=1, directory=engines) == FAST_SPLIT


@pytest.mark.parametrize("works", ["haswell", None])
def test_where_the_variant_chosen_dies_another_serves(
    engines: Path, monkeypatch: pytest.MonkeyPatch, works: str | None
) -> None:
    def run(_path: Path, profile: Profile, _threads: int, *_beside: object) -> Trial:
        return GOOD if profile.variant == works or not profile.library else FAILED

    monkeypatch.setattr(trials, "run_trial", run)
    chosen = _choose(engines, "fast")
    assert (chosen.library, chosen.variant) == ((PORTABLE, works) if works else ("", ""))


def test_a_trial_is_remembered_until_model_library_or_threads_change(
    engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = _try(monkeypatch, {"fa-split48": GOOD})
    _choose(engines, "exact")
    _choose(engines, "exact")
    assert len(tried) == 1
    choose(MODEL, b"\1" * 32, "exact", threads=1, directory=engines)
    choose(MODEL, bytes(32), "exact", threads=2, directory=engines)
    (engines / "wheel" / "libllama.so").write_bytes(b"another build")
    _choose(engines, "exact")
    assert len(tried) == 4
    for eyes in (b"e" * 32, b"e" * 32, b"f" * 32):
        named = (Path("eyes"), eyes)
        choose(MODEL, bytes(32), "exact", threads=1, directory=engines, projector=named)
    assert len(tried) == 6, "one for each projector"


@pytest.mark.parametrize(("kind", "road"), [(Kind.Q8_0, FLASH), (Kind.F16, PLAIN)])
def test_an_adapter_is_tried_with_the_model_and_floats_by_the_plain_road(
    engines: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind, road: Profile
) -> None:
    tried = _try(monkeypatch, {"fa-split48": GOOD, "plain": GOOD})
    adapter = write_adapter(engines / "adapter", 1, kind, layers=1)
    for digest in (b"\1" * 32, b"\1" * 32, b"\2" * 32):
        files = [(adapter, digest)]
        chosen = choose(MODEL, bytes(32), "exact", threads=1, directory=engines, adapters=files)
        assert chosen == replace(road, proved=True)
    assert tried == [road.road] * 2, "one for each adapter"
    _choose(engines, "exact")
    assert tried[2:] == ["fa-split48"], "and one without"


def test_a_trial_that_failed_or_a_garbled_memory_is_tried_again(
    engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = _try(monkeypatch, {"fa-split48": FAILED, "plain": FAILED})
    _choose(engines, "exact")
    _choose(engines, "exact")
    assert len(tried) == 4
    (engines / trials.FILE).write_text('{"x": 1}')
    _try(monkeypatch, {"fa-split48": GOOD})
    assert _choose(engines, "exact").proved


def test_a_library_that_was_changed_is_not_used(
    engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _try(monkeypatch, {"fa-split48": OFF_BY_A_BIT, "plain": GOOD})
    (library.folder("exact") / "libllama.so").write_bytes(b"changed")
    with pytest.raises(AssayError) as caught:
        _choose(engines, "exact")
    assert caught.value.code == "engine_failed"


def test_the_environment_chooses_library_and_kernels(engines: Path) -> None:
    environment = PLAIN.environment()
    assert environment[LIBRARY_VARIABLE] == str(library.folder("exact"))
    assert environment[TILED_VARIABLE] == "0"
    assert FLASH.environment()[LIBRARY_VARIABLE] == str(engines / "wheel")
    assert TILED_VARIABLE not in FLASH.environment()


def test_without_the_libraries_only_the_bindings_own_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "nothing"))
    monkeypatch.setenv(LIBRARY_VARIABLE, str(tmp_path))
    (tmp_path / "libllama.so").write_bytes(b"x")
    with pytest.raises(AssayError) as caught:
        PLAIN.environment()
    assert caught.value.code == "engine_missing"
    tried = _try(monkeypatch, {FAST_SPLIT.road: GOOD, FAST_UNIFIED.road: GOOD})
    assert not _choose(tmp_path, "fast").library
    assert len(tried) == 2


def test_packing_is_complete() -> None:
    for profile in (FLASH, replace(PLAIN, proved=True)):
        assert unpack(json.loads(json.dumps(profile.packed()))) == profile
