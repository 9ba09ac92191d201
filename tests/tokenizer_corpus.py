"""Texts that tokenizers get wrong, for comparing two of them."""

from __future__ import annotations

import random
import sys
from pathlib import Path

CORPUS_SIZE = 600


def corpus() -> list[str]:
    """CORPUS_SIZE texts, the same ones every time."""
    rng = random.Random(20261123)
    texts = [*_FIXED, *_source_lines(), *_character_runs()]
    while len(texts) < CORPUS_SIZE:
        texts.append("".join(rng.choice(_ATOMS) for _ in range(rng.randrange(1, 24))))
    return texts


def _source_lines() -> list[str]:
    """Code as people paste it: windows of this file and of a module of the standard library."""
    lines: list[str] = []
    for path in (Path(__file__), Path(random.__file__)):
        text = path.read_text()
        lines += [text[at : at + 300] for at in range(0, min(len(text), 24_000), 300)]
    return lines


def _character_runs() -> list[str]:
    """Every space and some of every script: what \\s, \\p{L} and \\p{N} are is easily missed."""
    spaces = [chr(code) for code in range(sys.maxunicode) if chr(code).isspace()]
    runs = [f"a{space}b {space}{space}c{space}" for space in spaces]
    scripts: tuple[int, ...] = (
        0xC0,
        0x370,
        0x400,
        0x5D0,
        0x627,
        0x905,
        0xE01,
        0x10A0,
        0x1100,
        0x2070,
        0x2150,
    )
    scripts += (0x2460, 0x3041, 0x30A1, 0x4E00, 0xAC00, 0xFF10, 0x1D7D0, 0x1F600)
    return runs + ["".join(chr(first + i) for i in range(24)) + " x1" for first in scripts]


_ATOMS = [
    *" \t\n\r\u00a0\u3000\u200b\u200d\ufe0f0123456789_#$€—…\\\"`~<>|\x00\x1f\x7f\ufeff\U000f0000�",
    "  ", "\n\n", "\r\n", "    ", "42", "٣", "½", "²", "Ⅷ", "3.14", "'s", "'re", "'LL", "don't",
    "the", " The", "ing", "naïve", "Straße", "日本語", "한국어", "русский", "عربى", "עִברִית",
    "हिन्दी", "ไทย", "é", "e\u0301", "🙂", "👩\u200d👩\u200d👧", "🇩🇪", "__init__", "()", "{}", "->",
    "!=", "<|im_end|>", "<|im_start|>", "<|endoftext|>", "<file_sep>", "<|im_", "end|>",
    "<reponame>", "</think>",
]  # fmt: skip

_FIXED = [
    "", " ", "  ", "\n", "a", "Hello, world!", " leading", "trailing ", "tabs\tand\t\ttabs",
    "line\nbreaks\r\nof\rall kinds\n\n\n", "1234567890", "3.14159 and 1,000,000", "v1.2.3-rc.4",
    "I'm you're he'd they'll we've it's 'tis", "I'M YOU'RE HE'D", "CamelCase snake_case kebab-case",
    "def f(x: int) -> str:\n    return f\"{x!r}\"\n", "SELECT * FROM t WHERE a <> 'b';",
    "<html><body class=\"x\">&amp;</body></html>", "https://example.org/a?b=c&d=%20#e",
    "<|im_start|>user\nhi<|im_end|>\n", "<|im_end|><|im_end|>", "<|im_<|im_end|>end|>", "<|im_end|",
    "|im_end|>", "x<|endoftext|>y", "<repo_name><reponame>", "a<|im_start|> b",
    "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋", "E = mc²", "½ + ⅓", "ⅣⅧ", "x₁₂", "٠١٢٣", "０１２３", "𝟘𝟙𝟚", "é è ê",
    "e\u0301", "ﬁ ligature", "ǅ",
    *(" " * n + "x" for n in range(1, 20)), *("\n" * n for n in range(2, 12)),
]  # fmt: skip
