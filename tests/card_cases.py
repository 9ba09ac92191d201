"""Model cards for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from assay_protocol.cards import ModelCard, ModelSource


def small_card(**changes: Any) -> ModelCard:
    """A valid card of five tokens, with `changes` applied."""
    card = ModelCard(
        name="tiny-1",
        digest=bytes(range(32)),
        size_bytes=4096,
        architecture="llama",
        quantization="Q4_1",
        context=512,
        n_vocab=5,
        bos=0,
        eos=1,
        add_bos=False,
        eog=(1,),
        tokenizer_model="gpt2",
        tokenizer_pre="smollm",
        pieces=(b"", b"", b"a", b"b", b"ab"),
        token_types=bytes([3, 3, 1, 1, 1]),
        merges=((2, 3),),
        texts=((0, "<|start|>"), (1, "<|end|>")),
        chat_template="{{ messages[0]['content'] }}",
        license="apache-2.0",
        source=ModelSource(hf_repo="someone/tiny", filename="tiny.gguf", revision="main"),
        price_in=100,
        price_out=300,
    )
    return replace(card, **changes)
