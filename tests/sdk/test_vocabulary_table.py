"""docs/call-the-network.md names exactly the vocabularies that the client knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from assay.tokenizer import Tokenizer
from assay.word_rules import WORD_RULES
from assay_protocol.errors import AssayError
from card_cases import small_card

PAGE = Path(__file__).parents[2] / "docs/call-the-network.md"


def rows() -> list[tuple[str, set[str]]]:
    """(model, names) of each row of the table."""
    section = PAGE.read_text().split("## Which vocabularies")[1].split("\n## ")[0]
    cells = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    named = [cell for cell in cells if "tokenizer.ggml" not in cell[1]]
    return [(cell[1].strip(" `"), set(re.findall(r"`([^`]+)`", cell[2]))) for cell in named]


def test_the_table_names_every_pre_tokenizer_and_no_other() -> None:
    names = [name for kind, row in rows() if kind == "gpt2" for name in row]
    assert sorted(names) == sorted(WORD_RULES)


def test_names_in_one_row_mean_the_same_and_rows_differ() -> None:
    meant = [{WORD_RULES[name] for name in row} for kind, row in rows() if kind == "gpt2"]
    assert all(len(rules) == 1 for rules in meant)
    assert len(set().union(*meant)) == len(meant)


def test_the_kinds_are_those_a_card_may_name() -> None:
    kinds = {kind for kind, _ in rows()}
    assert kinds == {"gpt2", "llama", "gemma4", "bert"}
    for kind in (*kinds, "t5", "rwkv"):
        with pytest.raises(AssayError) as refused:  # none of them can use this vocabulary
            Tokenizer.from_card(small_card(tokenizer_model=kind, tokenizer_pre="nothing"))
        known = kind in kinds - {"gpt2", "llama"}  # those two lack a name and scores here
        assert refused.value.code == ("card_invalid" if known else "model_unknown")
