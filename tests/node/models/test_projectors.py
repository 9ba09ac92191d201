"""A projector is looked at before anything loads it, is the one its card names, and is served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_node import cli
from assay_node.config import Settings
from assay_node.doctor import examine
from assay_node.engine.gallery import KEPT_BYTES_MAX
from assay_node.engine.interface import Generate
from assay_node.engine.profiles import FLASH
from assay_node.engine.trials import Trial
from assay_node.loading import Prepared, fitted_settings, images_bytes, open_engine, prepare_model
from assay_node.models.adapters import base_of
from assay_node.models.card import file_sha256
from assay_node.models.fit import larger_decodes
from assay_node.models.gguf import read_header
from assay_node.models.projectors import check_projector, read_projector
from assay_node.serving import need_bytes
from assay_protocol.cards import ModelCard, Vision, decode_card, encode_card, seeing_model
from assay_protocol.errors import AssayError
from assay_protocol.messages import Sampler
from card_cases import small_card
from gguf_cases import gguf
from vision_cases import BEGIN, END, SIDES, TOKENS, WORDS, image, shown, write_projector, write_seer

KINDS = tuple(SIDES)
SAMPLER = Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a projector of each kind, and a card of each with it, written by the command."""
    made = tmp_path_factory.mktemp("seer")
    write_seer(made / "seer.gguf")
    for kind in KINDS:
        projector = write_projector(made / f"{kind}.gguf", kind)
        given = [str(made / "seer.gguf"), "--projector", str(projector)]
        out = ["-o", str(made / f"{kind}.card"), "--json"]
        assert cli.main(["models", "card", *given, "--name", f"seer-{kind}", *out]) == 0
    return made


def _card(folder: Path, kind: str = "mlp") -> ModelCard:
    return decode_card((folder / f"{kind}.card").read_bytes())


def _settings(folder: Path, kind: str = "mlp", **options: Any) -> Settings:
    named = {"model": str(folder / "seer.gguf"), "projector": str(folder / f"{kind}.gguf")}
    given = {"card": str(folder / f"{kind}.card"), "data_dir": str(folder / "data")}
    return Settings(**(given | named | options))


def _code(call: Callable[[], object]) -> str:
    with pytest.raises(AssayError) as refused:
        call()
    return refused.value.code


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_says_how_images_are_read(folder: Path, kind: str) -> None:
    file, card = folder / f"{kind}.gguf", _card(folder, kind)
    marks = ((WORDS.index(BEGIN),), (WORDS.index(END),)) if kind == "gemma3" else ((), ())
    assert card.vision == Vision(
        projector=file_sha256(file),
        size_bytes=file.stat().st_size,
        tokens=TOKENS,
        side=SIDES[kind],
        before=marks[0],
        after=marks[1],
    )
    assert card.model == seeing_model(file_sha256(folder / "seer.gguf"), file_sha256(file))
    assert card.name == f"seer-{kind}"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"clip.projector_type": "qwen2vl_merger"}, "not served"),
        ({"clip.has_vision_encoder": False}, "no projector"),
        ({"clip.vision.image_grid_pinpoints": [64, 64]}, "not served"),
        ({"clip.vision.image_size": 0}, "patches"),
        ({"clip.vision.image_size": 33}, "patches"),
        ({"clip.vision.image_size": 1 << 31}, "patches"),
        ({"clip.vision.image_size": 8}, "4 positions"),
        ({"clip.vision.image_size": 512}, "16384 positions"),
        ({"clip.vision.patch_size": 0}, "patches"),
        ({"clip.vision.patch_size": "4"}, "no number"),
    ],
)
def test_a_projector_that_cannot_be_served_is_refused(
    tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    file = write_projector(tmp_path / "other.gguf", "mlp", values=values)
    with pytest.raises(AssayError, match="gguf_invalid") as refused:
        read_projector(file)
    assert said in str(refused.value)


def test_one_of_another_model_or_no_projector_at_all_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    model = read_header(folder / "seer.gguf")
    narrow = write_projector(tmp_path / "narrow.gguf", "gemma3", width=32)
    for file in (narrow, folder / "seer.gguf"):
        assert _code(lambda file=file: check_projector(file, model)) == "gguf_invalid"
    assert _code(lambda: check_projector(tmp_path / "none.gguf", model)) == "model_missing"
    plain = tmp_path / "plain.gguf"
    plain.write_bytes(gguf({"general.architecture": "clip"}))
    assert _code(lambda: check_projector(plain, model)) == "gguf_invalid"


@given(st.data())
def test_whatever_the_bytes_the_file_is_read_or_refused(folder: Path, data: st.DataObject) -> None:
    whole = bytearray((folder / "gemma3.gguf").read_bytes()[:4_000])
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    broken = folder / "broken.gguf_"
    broken.write_bytes(whole + (folder / "gemma3.gguf").read_bytes()[4_000:])
    found, code = None, ""
    try:
        found = read_projector(broken)
    except AssayError as error:
        code = error.code
    assert code == "gguf_invalid" if found is None else 9 <= found.tokens <= 4_096


def test_gemma_s_markers_must_be_in_the_vocabulary(folder: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "x.card", tmp_path / "other.gguf"
    data = (folder / "seer.gguf").read_bytes().replace(BEGIN.encode(), b"<start_of_imago>")
    model.write_bytes(data)
    argv = ["models", "card", str(model), "--projector", str(folder / "gemma3.gguf")]
    assert cli.main([*argv, "-o", str(out)]) == 1
    assert not out.exists()


def test_the_file_is_the_card_s(folder: Path, tmp_path: Path) -> None:
    card = _card(folder)
    assert prepare_model(_settings(folder), card).projector == folder / "mlp.gguf"
    models = tmp_path / "models"
    models.mkdir()
    given = _settings(folder, projector="", data_dir=str(tmp_path))
    assert _code(lambda: prepare_model(given, card)) == "model_missing"
    (models / "any-name.gguf").write_bytes((folder / "mlp.gguf").read_bytes())
    assert prepare_model(given, card).projector == models / "any-name.gguf"
    for wrong, code in (
        (_settings(folder, projector=str(folder / "gemma3.gguf")), "model_corrupt"),
        (_settings(folder, projector="none"), "model_missing"),
    ):
        assert _code(lambda wrong=wrong: prepare_model(wrong, card)) == code
    blind = replace(card, vision=None)
    assert _code(lambda: prepare_model(_settings(folder), blind)) == "config_invalid"
    assert card.vision is not None
    liar = replace(card, vision=replace(card.vision, tokens=TOKENS + 1))
    assert _code(lambda: prepare_model(_settings(folder), liar)) == "card_invalid"


def test_another_server_reads_no_images(folder: Path) -> None:
    settings = _settings(folder, engine="openai", engine_url="http://127.0.0.1:1")
    assert _code(lambda: prepare_model(settings, _card(folder))) == "config_invalid"


def test_memory_for_images_is_set_aside(folder: Path) -> None:
    settings = _settings(folder, memory_gib=1)
    blind, sees = (
        Prepared(_card(folder), folder / "seer.gguf"),
        prepare_model(settings, _card(folder)),
    )
    more = images_bytes(folder / "seer.gguf", sees.projector)
    assert more > KEPT_BYTES_MAX + (folder / "mlp.gguf").stat().st_size // 2
    assert need_bytes(settings, sees) == need_bytes(settings, blind) + more
    assert fitted_settings(settings, folder / "seer.gguf", sees.projector).slots == settings.slots
    assert larger_decodes(read_header(folder / "seer.gguf"), FLASH.replay_chunk) == 0
    vocabulary_bytes = 4 * len(WORDS)
    assert larger_decodes(read_header(folder / "seer.gguf"), 256) > 300 * vocabulary_bytes


def test_an_adapter_s_model_is_the_one_that_reads_images_alike() -> None:
    card = small_card()
    eyes = Vision(projector=bytes(32), size_bytes=1, tokens=9, side=9, before=(), after=())
    seeing = replace(card, vision=eyes)
    styled = replace(seeing, adapter=b"a" * 32)
    assert base_of(styled, [card, seeing, styled]) is seeing
    assert _code(lambda: base_of(styled, [card, styled])) == "config_invalid"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_the_engine_opened_for_a_card_answers_about_images(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("llama_cpp")
    monkeypatch.setattr("assay_node.engine.trials.choose", lambda *_, **__: FLASH)
    settings, card = _settings(folder, kind, slots=2, context=256, threads=1), _card(folder, kind)
    one = image(3)
    asked = Generate((1, *shown(one), 270), 0, 2, SAMPLER, bytes(32), images=(one,))
    async with open_engine(settings, prepare_model(settings, card)) as engine:
        assert engine.info.model == card.model
        assert engine.info.image_tokens == TOKENS
        async with engine.generate(asked) as chunks:
            assert sum([len(chunk.tokens) async for chunk in chunks]) >= 1


def test_the_doctor_names_a_projector_that_is_missing_or_another(
    folder: Path, tmp_path: Path
) -> None:
    for projector, code in (
        ("", "projector_missing"),
        ("none.gguf", "projector_missing"),
        (str(folder / "gemma3.gguf"), "projector_wrong"),
        (str(folder / "seer.gguf"), "projector_wrong"),
    ):
        settings = _settings(folder, projector=projector, data_dir=str(tmp_path))
        found = [one for one in examine(settings, load_engine=False) if one.check == "model"]
        assert [(one.state, one.code) for one in found] == [("fault", code)]
    good = examine(_settings(folder, data_dir=str(tmp_path)), load_engine=False)
    assert [one.state for one in good if one.check in ("model", "memory")] == ["ok", "ok"]
    card = _card(folder)
    gone = tmp_path / "gone.card"
    gone.write_bytes(encode_card(replace(card, digest=bytes(32))))
    settings = _settings(folder, card=str(gone), data_dir=str(tmp_path))
    found = [one for one in examine(settings, load_engine=False) if one.check == "model"]
    assert [one.code for one in found] == ["model_corrupt"]


def test_a_selfcheck_tries_images_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path | None] = []

    def run(*_: object, projector: Path | None) -> Trial:
        tried.append(projector)
        return Trial(True, 9, 0, 1.0, 1.0, "class/E")

    monkeypatch.setattr("assay_node.selfcheck_command.run_trial", run)
    argv = ["selfcheck", "--model", str(folder / "seer.gguf"), "--data-dir", str(tmp_path)]
    assert cli.main([*argv, "--projector", str(folder / "mlp.gguf")]) == 0
    assert set(tried) == {folder / "mlp.gguf"}
    assert cli.main([*argv, "--projector", str(folder / "seer.gguf")]) == 1


def test_settings_name_it_for_the_first_model_alone(tmp_path: Path) -> None:
    settings = Settings(model="a", card="a.card", projector="eyes", models=("b.card=b",))
    assert [one.projector for one in settings.each()] == ["eyes", ""]
    assert [one.model for one in settings.each()] == ["a", "b"]
