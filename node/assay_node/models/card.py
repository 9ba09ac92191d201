"""Builds a model card from a GGUF file: what the file says of its model, checked and decoded.

End-of-answer tokens and overridden token types follow llama.cpp (`src/llama-vocab.cpp`), because
the node stops where llama.cpp says an answer ends and the client must stop there too. Text of
byte-level BPE vocabularies is turned back into bytes here, once, so nobody else needs the table.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from types import UnionType
from typing import Any, Final

from assay_node.models.gguf_fields import read_fields
from assay_protocol.cards import (
    BYTE_CHARACTERS,
    SILENT,
    ModelCard,
    ModelSource,
    SentencePieces,
    TokenType,
    encode_card,
)
from assay_protocol.errors import AssayError, ProtocolError

_CHUNK_BYTES: Final = 1 << 20
_NO_BOS_BY_DEFAULT: Final = "gpt2"  # byte-level BPE adds no bos unless the file says so
# fmt: off
_BOS_BY_PRE: Final = frozenset({
    "llama-bpe", "llama3", "llama-v3", "tekken", "chameleon", "falcon3", "falcon-h1", "pixtral",
    "midm-2.0", "lfm2", "jina-v5-nano",
})
# fmt: on
_SENTENCE_PIECES: Final = "llama"
_SPACE_MARK: Final = "\u2581"
# Of models by these names all markers but three drop the white space after them.
_SWALLOWING: Final = ("phi-3", "phi3")
_SWALLOW_NOTHING: Final = frozenset({"<unk>", "<s>", "<|endoftext|>"})
_ALWAYS_SHOWN: Final = frozenset({"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"})
# fmt: off
_EOG_TEXTS: Final = frozenset({
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
    "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
    "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
    "<｜end▁of▁sentence｜>", "[e~[",
})
# fmt: on
# Fill-in-the-middle markers: of each group the first one in the vocabulary ends an answer.
_FIM_TEXTS: Final = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
# Those that surround the gap steer the model, whatever the file says, unless it names them by role.
_FIM_CONTROLS: Final = {
    ("fim_pre", "prefix"): (
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
        "<|code_prefix|>", "<|prefix|>",
    ),
    ("fim_suf", "suffix"): (
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
        "<|code_suffix|>", "<|suffix|>",
    ),
    ("fim_mid", "middle"): (
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
        "<|code_middle|>", "<|middle|>",
    ),
}  # fmt: skip


def build_card(
    path: Path,
    *,
    name: str,
    price_in: int,
    price_out: int,
    source: ModelSource | None = None,
) -> ModelCard:
    """The card of the GGUF file at `path`. Prices in micro-credits per 1000 tokens.

    Raises AssayError "model_missing" (no such file) or "card_invalid" (not a GGUF file, no
    vocabulary, or one that contradicts itself).
    """
    if not path.is_file():
        raise AssayError("model_missing", f"no file {path}")
    fields = _Fields(path)
    vocabulary = _Vocabulary(fields)
    architecture = fields.text("general.architecture")
    card = ModelCard(
        name=name,
        digest=file_sha256(path),
        size_bytes=path.stat().st_size,
        architecture=architecture,
        quantization=_quantization(fields),
        context=fields.integer(f"{architecture}.context_length"),
        n_vocab=len(vocabulary.written),
        bos=vocabulary.bos,
        eos=vocabulary.eos,
        add_bos=vocabulary.add_bos,
        eog=vocabulary.eog(),
        tokenizer_model=vocabulary.model,
        tokenizer_pre=vocabulary.pre,
        pieces=vocabulary.pieces(),
        token_types=bytes(vocabulary.kinds),
        merges=vocabulary.merges(),
        texts=vocabulary.texts(),
        chat_template=fields.text("tokenizer.chat_template", ""),
        license=fields.text("general.license", ""),
        source=source,
        price_in=price_in,
        price_out=price_out,
        sentence_pieces=vocabulary.sentence_pieces(),
    )
    encode_card(card)  # a card that breaks a rule must not leave here
    return card


def file_sha256(path: Path) -> bytes:
    """SHA-256 of the file, read once without filling memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.digest()


class _Fields:
    """Typed access to the key-value part of a GGUF file."""

    def __init__(self, path: Path) -> None:
        try:
            self._fields = read_fields(path)
        except AssayError as error:
            raise ProtocolError("card_invalid", f"{path.name} is not a GGUF file") from error

    def get(self, key: str) -> Any:
        """The value, or None when the file does not have the key."""
        return self._fields.get(key)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.get(key)
        value = default if value is None else value
        if not isinstance(value, str):
            raise ProtocolError("card_invalid", f"the file has no text {key}")
        return value

    def integer(self, key: str) -> int:
        value = self.optional_integer(key)
        if value is None:
            raise ProtocolError("card_invalid", f"the file has no number {key}")
        return value

    def optional_integer(self, key: str, default: int | None = None) -> int | None:
        value = self.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def list_of(self, key: str, kind: type | UnionType) -> list[Any]:
        value = self.get(key)
        value = [] if value is None else value
        if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
            raise ProtocolError("card_invalid", f"{key} is not a list of {kind}")
        return value


class _Vocabulary:
    """The tokenizer part: `written` are the texts as the file has them, `kinds` TokenTypes."""

    def __init__(self, fields: _Fields) -> None:
        self.model = fields.text("tokenizer.ggml.model")
        self.pre = fields.text("tokenizer.ggml.pre", "default")
        self.written: list[str] = fields.list_of("tokenizer.ggml.tokens", str)
        kinds = fields.list_of("tokenizer.ggml.token_type", int)
        self.kinds: list[int] = kinds or [TokenType.NORMAL] * len(self.written)
        self._fields = fields
        by_default = (1, 2) if self.model == _SENTENCE_PIECES else (None, None)
        self.bos = fields.optional_integer("tokenizer.ggml.bos_token_id", by_default[0])
        self.eos = fields.optional_integer("tokenizer.ggml.eos_token_id", by_default[1])
        said = fields.get("tokenizer.ggml.add_bos_token")
        default = self.model != _NO_BOS_BY_DEFAULT or self.pre in _BOS_BY_PRE
        wanted = self.model == "gemma4" or bool(default if said is None else said)
        self.add_bos = self.bos is not None and wanted
        self._merges: list[str] = fields.list_of("tokenizer.ggml.merges", str)
        self._ids = {text: token for token, text in enumerate(self.written)}
        self._ends = self._named_ends(fields)
        self._check()
        self._override_kinds()

    def eog(self) -> tuple[int, ...]:
        """Tokens that end an answer, ascending."""
        ends = self._all_ends()
        return tuple(sorted(ends - self._no_ends(ends).keys()))

    def _no_ends(self, ends: set[int]) -> dict[int, TokenType]:
        """Of `ends` those that llama.cpp takes back, and the kind it gives them then."""
        named = {self.written[token]: token for token in ends}
        calls = not named.keys().isdisjoint({"<|call|>", "<|calls|>"})
        no_ends = {}
        if calls and not named.keys().isdisjoint({"<|return|>", "<|flush|>"}):
            # There it ends a message, not the answer.
            no_ends[named.get("<|end|>", -1)] = TokenType.USER_DEFINED
        if "<|tool_response>" in named:
            no_ends[named.get("</s>", -1)] = TokenType.NORMAL
        return {token: kind for token, kind in no_ends.items() if token >= 0}

    def _all_ends(self) -> set[int]:
        return self._ends | {i for i, text in enumerate(self.written) if text in _EOG_TEXTS}

    def sentence_pieces(self) -> SentencePieces | None:
        """What only SentencePiece vocabularies are tokenized with."""
        if self.model != _SENTENCE_PIECES:
            return None
        said = self._fields.list_of("tokenizer.ggml.scores", int | float)
        scores = said or [0.0] * len(self.written)
        if len(scores) != len(self.written):
            raise ProtocolError("card_invalid", "scores for more or fewer tokens than there are")
        spaced = self._fields.get("tokenizer.ggml.add_space_prefix")
        name = self._fields.text("general.name", "").lower()
        swallows = [
            token
            for token, text in self.texts()
            if self.kinds[token] != TokenType.UNUSED and text not in _SWALLOW_NOTHING
        ]
        return SentencePieces(
            scores=struct.pack(f"<{len(scores)}f", *scores),
            space_first=True if spaced is None else bool(spaced),
            swallows=tuple(swallows) if any(part in name for part in _SWALLOWING) else (),
        )

    def pieces(self) -> tuple[bytes, ...]:
        return tuple(
            self._piece(text, kind) for text, kind in zip(self.written, self.kinds, strict=True)
        )

    def texts(self) -> tuple[tuple[int, str], ...]:
        """What markers look like in a prompt; a piece tells it for all other tokens."""
        marked = SILENT | {TokenType.USER_DEFINED}
        return tuple(
            (token, text)
            for token, (text, kind) in enumerate(zip(self.written, self.kinds, strict=True))
            if kind in marked and text
        )

    def merges(self) -> tuple[tuple[int, int], ...]:
        pairs = []
        for merge in self._merges:
            # The first character may itself be a space in vocabularies that are not byte-level.
            left, _, right = merge[1:].partition(" ")
            pair = (self._ids.get(merge[:1] + left), self._ids.get(right))
            if pair[0] is None or pair[1] is None:
                raise ProtocolError("card_invalid", "a merge of tokens that do not exist")
            pairs.append((pair[0], pair[1]))
        return tuple(pairs)

    def _named_ends(self, fields: _Fields) -> set[int]:
        """End tokens the file names by role; a marker found by its text stands in for a role."""
        ends = {self.eos}
        for role in ("eot", "eom", *_FIM_TEXTS):
            token = fields.optional_integer(f"tokenizer.ggml.{role}_token_id")
            found = [self._ids[text] for text in _FIM_TEXTS.get(role, ()) if text in self._ids]
            ends.update([token] if token is not None else found[:1])
        return {end for end in ends if end is not None}

    def _check(self) -> None:
        n_vocab = len(self.written)
        if not n_vocab or len(self.kinds) != n_vocab or len(self._ids) != n_vocab:
            raise ProtocolError("card_invalid", "tokens are missing, doubled or without type")
        if not all(kind in set(TokenType) for kind in self.kinds):
            raise ProtocolError("card_invalid", "a token has an unknown type")
        if not all(0 <= end < n_vocab for end in self._ends):
            raise ProtocolError("card_invalid", "an end token is not in the vocabulary")

    def _override_kinds(self) -> None:
        """Markers some files list as plain text; llama.cpp corrects them the same way."""
        ends = self._all_ends()
        for token in ends:
            if self.kinds[token] != TokenType.UNUSED:
                self.kinds[token] = TokenType.CONTROL
        for token, kind in self._no_ends(ends).items():
            self.kinds[token] = kind
        for roles, texts in _FIM_CONTROLS.items():
            keys = [f"tokenizer.ggml.{role}_token_id" for role in roles]
            if all(self._fields.optional_integer(key) is None for key in keys):
                for text in [text for text in texts if text in self._ids][:1]:
                    self.kinds[self._ids[text]] = TokenType.CONTROL
        if self.model == "gpt2":
            # No text becomes such a token: what it is written with stands for no bytes.
            for token, text in enumerate(self.written):
                if self.kinds[token] == TokenType.NORMAL and not _BYTE_OF.keys() >= set(text):
                    self.kinds[token] = TokenType.UNUSED
        for text in _ALWAYS_SHOWN & self._ids.keys():
            self.kinds[self._ids[text]] = TokenType.USER_DEFINED

    def _piece(self, text: str, kind: int) -> bytes:
        if kind in SILENT:
            return b""
        if kind == TokenType.USER_DEFINED:
            return text.encode()
        if kind == TokenType.BYTE:
            return _byte_piece(text)
        if self.model == "gpt2":
            return _byte_level_piece(text)
        return text.replace(_SPACE_MARK, " ").encode()


def _quantization(fields: _Fields) -> str:
    from gguf import LlamaFileType

    number = fields.optional_integer("general.file_type")
    try:
        return str(LlamaFileType(number).name).removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        return "unknown"


def _byte_piece(text: str) -> bytes:
    """`<0x0A>` -> one byte."""
    try:
        return bytes([int(text.removeprefix("<0x").removesuffix(">"), 16)])
    except ValueError as error:
        raise ProtocolError("card_invalid", f"a byte token is written {text[:16]!r}") from error


def _byte_level_piece(text: str) -> bytes:
    try:
        return bytes([_BYTE_OF[character] for character in text])
    except KeyError as error:
        raise ProtocolError("card_invalid", "a token is not byte-level text") from error


_BYTE_OF: Final = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}
