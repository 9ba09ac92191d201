"""Builds a model card from a GGUF file: what the file says of its model, checked and decoded.

End-of-answer tokens and overridden token types follow llama.cpp (`src/llama-vocab.cpp`), because
the node stops where llama.cpp says an answer ends and the client must stop there too. Text of
byte-level BPE vocabularies is turned back into bytes here, once, so nobody else needs the table.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Final

from assay_protocol.cards import (
    BYTE_CHARACTERS,
    SILENT,
    ModelCard,
    ModelSource,
    TokenType,
    encode_card,
)
from assay_protocol.errors import AssayError, ProtocolError

_CHUNK_BYTES: Final = 1 << 20
_NO_BOS_BY_DEFAULT: Final = "gpt2"  # byte-level BPE adds no bos unless the file says so
_BOS_BY_PRE: Final = frozenset({"llama-bpe", "llama3", "llama-v3", "tekken", "chameleon"})
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
        from gguf import GGUFReader  # imports numpy; only card building needs it

        try:
            self._fields: dict[str, Any] = GGUFReader(os.fspath(path), "r").fields
        except Exception as error:  # the reader raises whatever numpy does on a broken file
            raise ProtocolError("card_invalid", f"{path.name} is not a GGUF file") from error

    def get(self, key: str) -> Any:
        """The value, or None when the file does not have the key."""
        field = self._fields.get(key)
        if field is None:
            return None
        try:
            return field.contents()
        except (ValueError, IndexError, TypeError) as error:
            raise ProtocolError("card_invalid", f"{key} cannot be read") from error

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

    def optional_integer(self, key: str) -> int | None:
        value = self.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def list_of(self, key: str, kind: type) -> list[Any]:
        value = self.get(key)
        value = [] if value is None else value
        if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
            raise ProtocolError("card_invalid", f"{key} is not a list of {kind.__name__}")
        return value


class _Vocabulary:
    """The tokenizer part: `written` are the texts as the file has them, `kinds` TokenTypes."""

    def __init__(self, fields: _Fields) -> None:
        self.model = fields.text("tokenizer.ggml.model")
        self.pre = fields.text("tokenizer.ggml.pre", "default")
        self.written: list[str] = fields.list_of("tokenizer.ggml.tokens", str)
        kinds = fields.list_of("tokenizer.ggml.token_type", int)
        self.kinds: list[int] = kinds or [TokenType.NORMAL] * len(self.written)
        self.bos = fields.optional_integer("tokenizer.ggml.bos_token_id")
        self.eos = fields.optional_integer("tokenizer.ggml.eos_token_id")
        said = fields.get("tokenizer.ggml.add_bos_token")
        default = self.model != _NO_BOS_BY_DEFAULT or self.pre in _BOS_BY_PRE
        self.add_bos = self.bos is not None and bool(default if said is None else said)
        self._merges: list[str] = fields.list_of("tokenizer.ggml.merges", str)
        self._ids = {text: token for token, text in enumerate(self.written)}
        self._ends = self._named_ends(fields)
        self._check()
        self._override_kinds()

    def eog(self) -> tuple[int, ...]:
        """Tokens that end an answer, ascending."""
        ends = self._ends | {i for i, text in enumerate(self.written) if text in _EOG_TEXTS}
        named = {self.written[token]: token for token in ends}
        if {"<|call|>", "<|return|>"} <= named.keys():
            ends.discard(named.get("<|end|>", -1))  # there it ends a message, not the answer
        if "<|tool_response>" in named:
            ends.discard(named.get("</s>", -1))
        return tuple(sorted(ends))

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
        for token in self.eog():
            if self.kinds[token] != TokenType.UNUSED:
                self.kinds[token] = TokenType.CONTROL
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
        return text.replace("\u2581", " ").encode()


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
