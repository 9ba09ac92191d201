"""A model's tokenizer as transformers reads it, from the model's own file: nothing is downloaded.

Written from the lists in the GGUF header and not from our card, so that our tokenizer is not held
to itself. For the byte-level BPE of the model that the suites ask for, and no other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

_CONTROL: Final = 3  # token type of GGUF


def write_tokenizer(model: Path, folder: Path) -> None:
    """`folder` for `tokenizer=` of lm-eval and others."""
    fields = GGUFReader(model).fields

    def value(name: str) -> Any:
        return fields[f"tokenizer.ggml.{name}"].contents()

    assert value("pre") == "smollm", "another way of cutting text into words"
    texts, kinds = value("tokens"), value("token_type")
    merges = [tuple(merge.split(" ")) for merge in value("merges")]
    bpe = models.BPE({text: token for token, text in enumerate(texts)}, merges)
    tokenizer: Any = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [text for text, kind in zip(texts, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in control])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": texts[value("bos_token_id")],
        "eos_token": texts[value("eos_token_id")],
        "add_bos_token": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
