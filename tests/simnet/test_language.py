"""The arithmetic language: pure, and its variants are as far off as they are said to be."""

from __future__ import annotations

import numpy as np
import pytest

from assay_simnet.language import (
    BLOCK,
    DRIFT,
    NOISE,
    VOCABULARY,
    Language,
    noisy,
    variant_amplitude,
)

MODEL = bytes(32)
TEXT = tuple(1 + place % (VOCABULARY - 1) for place in range(40))


def test_logits_are_a_function_of_model_and_text() -> None:
    row = Language(MODEL).logits(TEXT)
    assert row.shape == (VOCABULARY,)
    assert np.array_equal(row, Language(MODEL).logits(TEXT))
    assert not np.array_equal(row, Language(b"another model".ljust(32)).logits(TEXT))
    assert not np.array_equal(row, Language(MODEL).logits((*TEXT[:-1], 9)))


def test_an_early_block_leans_on_what_comes_much_later() -> None:
    language = Language(MODEL)
    edited = (9,) * BLOCK + TEXT[BLOCK:]
    apart = np.abs(language.logits(TEXT) - language.logits(edited))
    assert 0 < apart.max() < 8 * NOISE
    other_end = language.logits((*TEXT[:-1], 9))
    assert np.abs(language.logits(TEXT) - other_end).max() > 10 * apart.max()


def test_what_is_remembered_changes_nothing() -> None:
    language = Language(MODEL)
    first = [language.logits(TEXT[:end]) for end in range(1, len(TEXT))]
    again = [language.logits(TEXT[:end]) for end in range(len(TEXT) - 1, 0, -1)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("name", sorted(set(DRIFT) - {"other_model"}))
def test_a_variant_drifts_as_often_as_is_said(name: str) -> None:
    language, texts = Language(MODEL), [TEXT[: 5 + i] for i in range(30)]

    def apart(variant: str, amplitude: float) -> float:
        squares = []
        for number, text in enumerate(texts):
            place = number.to_bytes(2, "big")
            theirs = noisy(language.logits(text, variant, amplitude), b"one", place, NOISE)
            ours = noisy(language.logits(text), b"two", place, NOISE)
            squares.append(float(np.square(theirs - ours).mean()))
        return float(np.sqrt(np.mean(squares)))

    honest = apart("", 0.0)
    assert apart(name, variant_amplitude(name)) / honest == pytest.approx(DRIFT[name], rel=0.1)


def test_noise_keeps_to_its_amplitude() -> None:
    row = Language(MODEL).logits(TEXT)
    off = noisy(row, b"key", b"place", NOISE) - row
    assert 0 < np.abs(off).max() <= NOISE * 1.001
    assert np.array_equal(noisy(row, b"key", b"place", 0.0), row.astype(np.float32))
