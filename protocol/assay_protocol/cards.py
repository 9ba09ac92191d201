"""The model card: everything a client, a node and an auditor must agree on about one model.

A card is computed from the GGUF file and names it by its sha256, so a node cannot serve another
file under the same name, and a client can tokenize, render the chat template and detokenize
without ever holding the file. A model with a LoRA adapter has a card of its own, which names both
files. The bytes of a card are canonical: one card has one encoding, and `card_digest` of those
bytes names it. Rules:

- `pieces[i]` are the exact bytes token i adds to the output; control tokens add none.
- `texts` holds what a token is *written* as, for the tokens whose piece does not say it.
- Any bytes give a card or `ProtocolError("card_invalid")`, never anything else.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import msgpack

from assay_protocol.errors import ProtocolError
from assay_protocol.limits import (
    CARD_BYTES_MAX,
    CARD_CONTEXT_MAX,
    CARD_EOG_MAX,
    CARD_LABEL_BYTES_MAX,
    CARD_MARKS_MAX,
    CARD_MERGES_MAX,
    CARD_PIECE_BYTES_MAX,
    CARD_PRICE_MAX,
    CARD_SOURCE_BYTES_MAX,
    CARD_TEMPLATE_BYTES_MAX,
    CARD_TEXTS_MAX,
    CARD_VOCAB_MAX,
    IMAGE_SIDE_MAX,
    IMAGE_TOKENS_MAX,
    IMAGE_TOKENS_MIN,
    MODEL_BYTES_MAX,
)

CARD_FORMAT: Final = "assay-card-1"
_DIGEST_PERSON: Final = b"assay card"
_ADAPTED_PERSON: Final = b"assay adapted"
_SEEING_PERSON: Final = b"assay seeing"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REPO: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FILENAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


class TokenType(IntEnum):
    """Kinds of token, with the numbers GGUF gives them (`tokenizer.ggml.token_type`)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


SILENT: Final = frozenset({TokenType.UNKNOWN, TokenType.CONTROL, TokenType.UNUSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where the file can be fetched: a repository of a Hugging Face style hub."""

    hf_repo: str
    filename: str
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SentencePieces:
    """What a SentencePiece vocabulary (`tokenizer_model` "llama") is tokenized with besides.

    `scores` are n_vocab finite float32, little-endian: of two joined pieces the better goes first.
    With `space_first` a space is put before text that begins a prompt or follows a marker.
    `swallows` are markers after which white space is dropped, ascending.
    """

    scores: bytes = field(repr=False)
    space_first: bool
    swallows: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vision:
    """How a model reads images: the projector's file (GGUF, "mmproj"), its sha256 and size.

    Each image takes `tokens` positions of a prompt (images.py), between the tokens `before` and
    `after`. It is made to fit `side` x `side` pixels before it is sent: the projector makes no more
    of a larger one.
    """

    projector: bytes
    size_bytes: int
    tokens: int
    side: int
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """One model: a file, or a file and an adapter. Sizes in bytes, prices in micro-credits per
    1000 tokens.

    `digest` is the sha256 of the model's file and `adapter` that of the LoRA file its answers are
    computed with, if there is one; `model`, which binds both, is what the network knows it by.
    `token_types` has one byte per token (TokenType); `merges` holds pairs of token ids in order
    of rank; `texts` holds (token id, text) in ascending id. `eog` are the tokens that end an
    answer, ascending. `price_in` is for prompt tokens, `price_out` for generated ones. `block_root`
    (blocks.py) lets parts of the file be checked before the whole is there; a card may lack it.
    `sentence_pieces` is for SentencePiece vocabularies alone; cards of such made before lack it.
    `vision` is there for models that read images.
    """

    name: str
    digest: bytes
    size_bytes: int
    architecture: str
    quantization: str
    context: int
    n_vocab: int
    bos: int | None
    eos: int | None
    add_bos: bool
    eog: tuple[int, ...]
    tokenizer_model: str
    tokenizer_pre: str
    pieces: tuple[bytes, ...] = field(repr=False)
    token_types: bytes = field(repr=False)
    merges: tuple[tuple[int, int], ...] = field(repr=False)
    texts: tuple[tuple[int, str], ...] = field(repr=False)
    chat_template: str = field(repr=False)
    license: str
    source: ModelSource | None
    price_in: int
    price_out: int
    block_root: bytes | None = None
    adapter: bytes | None = None
    sentence_pieces: SentencePieces | None = None
    vision: Vision | None = None

    @property
    def model(self) -> bytes:
        """What tickets, offers and receipts name it by, 32 bytes."""
        name = self.digest if self.adapter is None else adapted_model(self.digest, self.adapter)
        return name if self.vision is None else seeing_model(name, self.vision.projector)


def adapted_model(digest: bytes, adapter: bytes) -> bytes:
    """The name of the model in the file `digest` with the LoRA file `adapter`: BLAKE2b-256 of both
    sha256 values, personalized, so that it is no file's."""
    both = digest + adapter
    return hashlib.blake2b(both, digest_size=32, person=_ADAPTED_PERSON).digest()


def seeing_model(model: bytes, projector: bytes) -> bytes:
    """The name of `model` with the projector of that sha256, made as an adapter's is."""
    both = model + projector
    return hashlib.blake2b(both, digest_size=32, person=_SEEING_PERSON).digest()


def encode_card(card: ModelCard) -> bytes:
    """Canonical bytes of `card`; raises ProtocolError("card_invalid") if it breaks a rule."""
    _check(card)
    source = card.source
    data: bytes = msgpack.packb(
        [
            CARD_FORMAT,
            card.name,
            card.digest,
            card.size_bytes,
            card.architecture,
            card.quantization,
            card.context,
            card.n_vocab,
            card.bos,
            card.eos,
            card.add_bos,
            list(card.eog),
            card.tokenizer_model,
            card.tokenizer_pre,
            list(card.pieces),
            card.token_types,
            _pack_merges(card.merges),
            [list(pair) for pair in card.texts],
            card.chat_template,
            card.license,
            None if source is None else [source.hf_repo, source.filename, source.revision],
            card.price_in,
            card.price_out,
            *_appended(card),
        ],
        use_bin_type=True,
    )
    _require(len(data) <= CARD_BYTES_MAX, "the card is too large")
    return data


def decode_card(data: bytes) -> ModelCard:
    """The card in `data`; raises ProtocolError("card_invalid") for anything that is not one."""
    _require(len(data) <= CARD_BYTES_MAX, "the card is too large")
    try:
        raw = msgpack.unpackb(data, raw=False, use_list=False, max_array_len=CARD_VOCAB_MAX)
    except Exception as error:  # msgpack raises a dozen kinds; each means bytes that are no card
        raise ProtocolError("card_invalid", "the card is not msgpack") from error
    _require(type(raw) is tuple and 23 <= len(raw) <= 27, "the card has a wrong number of fields")
    _require(raw[0] == CARD_FORMAT, "the card has an unknown format")
    card = ModelCard(
        name=raw[1],
        digest=raw[2],
        size_bytes=raw[3],
        architecture=raw[4],
        quantization=raw[5],
        context=raw[6],
        n_vocab=raw[7],
        bos=raw[8],
        eos=raw[9],
        add_bos=raw[10],
        eog=raw[11],
        tokenizer_model=raw[12],
        tokenizer_pre=raw[13],
        pieces=raw[14],
        token_types=raw[15],
        merges=_unpack_merges(raw[16]),
        texts=raw[17],
        chat_template=raw[18],
        license=raw[19],
        source=_source(raw[20]),
        price_in=raw[21],
        price_out=raw[22],
        block_root=raw[23] if len(raw) > 23 else None,
        adapter=raw[24] if len(raw) > 24 else None,
        sentence_pieces=_sentence_pieces(raw[25]) if len(raw) > 25 else None,
        vision=_vision(raw[26]) if len(raw) > 26 else None,
    )
    _require(encode_card(card) == data, "the card is not in canonical form")
    return card


def card_digest(data: bytes) -> bytes:
    """BLAKE2b-256 of an encoded card, personalized; the name of the card on the network."""
    return hashlib.blake2b(data, digest_size=32, person=_DIGEST_PERSON).digest()


def _check(card: ModelCard) -> None:
    """Every rule of protocol/spec/model-card.md, on values of any type."""
    _require(type(card.name) is str and bool(_NAME.fullmatch(card.name)), "bad model name")
    _require(type(card.digest) is bytes and len(card.digest) == 32, "digest must be 32 bytes")
    _integer(card.size_bytes, 1, MODEL_BYTES_MAX, "size_bytes")
    for label in ("architecture", "quantization", "tokenizer_model", "tokenizer_pre", "license"):
        _text(getattr(card, label), CARD_LABEL_BYTES_MAX, label)
    _text(card.chat_template, CARD_TEMPLATE_BYTES_MAX, "chat_template")
    _integer(card.context, 1, CARD_CONTEXT_MAX, "context")
    _integer(card.n_vocab, 1, CARD_VOCAB_MAX, "n_vocab")
    _integer(card.price_in, 0, CARD_PRICE_MAX, "price_in")
    _integer(card.price_out, 0, CARD_PRICE_MAX, "price_out")
    _require(type(card.add_bos) is bool, "add_bos is not a boolean")
    _require(card.bos is not None or not card.add_bos, "add_bos without a bos token")
    for token in (card.bos, card.eos):
        if token is not None:
            _integer(token, 0, card.n_vocab - 1, "a special token id")
    _ascending(card.eog, card.n_vocab, CARD_EOG_MAX, "eog")
    _check_vocabulary(card)
    _check_sentence_pieces(card)
    _check_vision(card)
    for name in ("block_root", "adapter"):
        value = getattr(card, name)
        _require(value is None or (type(value) is bytes and len(value) == 32), f"a bad {name}")
    if card.source is not None:
        _check_source(card.source)


def _appended(card: ModelCard) -> list[object]:
    """Fields that came later: up to the last one there is, nil for one left out before it."""
    pieces = card.sentence_pieces
    packed = None if pieces is None else [pieces.scores, pieces.space_first, list(pieces.swallows)]
    sees = card.vision
    seen = None if sees is None else [getattr(sees, name) for name in Vision.__slots__]
    later: list[object] = [card.block_root, card.adapter, packed, seen]
    while later and later[-1] is None:
        later.pop()
    return later


def _check_vocabulary(card: ModelCard) -> None:
    _require(type(card.pieces) is tuple and len(card.pieces) == card.n_vocab, "pieces != n_vocab")
    for piece in card.pieces:
        _require(type(piece) is bytes and len(piece) <= CARD_PIECE_BYTES_MAX, "a bad piece")
    _require(type(card.token_types) is bytes, "token_types is not bytes")
    _require(len(card.token_types) == card.n_vocab, "token_types != n_vocab")
    _require(set(card.token_types) <= set(TokenType), "an unknown token type")
    for piece, kind in zip(card.pieces, card.token_types, strict=True):
        _require(not piece or kind not in SILENT, "a control token with output bytes")
    _require(type(card.merges) is tuple and len(card.merges) <= CARD_MERGES_MAX, "bad merges")
    for merge in card.merges:
        _require(type(merge) is tuple and len(merge) == 2, "a bad merge")
        left, right = merge
        _require(type(left) is int and 0 <= left < card.n_vocab, "a merge out of range")
        _require(type(right) is int and 0 <= right < card.n_vocab, "a merge out of range")
    _require(type(card.texts) is tuple and len(card.texts) <= CARD_TEXTS_MAX, "bad texts")
    for pair in card.texts:
        _require(type(pair) is tuple and len(pair) == 2, "a bad text")
        _text(pair[1], CARD_PIECE_BYTES_MAX, "a token's text")
        _require(pair[1] != "", "an empty token text")
    _ascending(tuple(token for token, _ in card.texts), card.n_vocab, CARD_TEXTS_MAX, "texts")


def _check_sentence_pieces(card: ModelCard) -> None:
    pieces = card.sentence_pieces
    if pieces is None:
        return
    _require(type(pieces) is SentencePieces, "bad sentence_pieces")
    _require(card.tokenizer_model == "llama", "scores for a vocabulary that has no use for them")
    _require(type(pieces.scores) is bytes, "scores are not bytes")
    _require(len(pieces.scores) == 4 * card.n_vocab, "scores != n_vocab")
    finite = all(map(math.isfinite, struct.unpack(f"<{card.n_vocab}f", pieces.scores)))
    _require(finite, "a score that is no number")
    _require(type(pieces.space_first) is bool, "space_first is not a boolean")
    _ascending(pieces.swallows, card.n_vocab, CARD_TEXTS_MAX, "swallows")
    marked = {token for token, _ in card.texts}
    _require(marked.issuperset(pieces.swallows), "a token that swallows and is no marker")


def _check_vision(card: ModelCard) -> None:
    sees = card.vision
    if sees is None:
        return
    _require(type(sees) is Vision, "a bad vision")
    _require(type(sees.projector) is bytes and len(sees.projector) == 32, "a bad projector")
    _integer(sees.size_bytes, 1, MODEL_BYTES_MAX, "a projector's size")
    _integer(sees.tokens, IMAGE_TOKENS_MIN, IMAGE_TOKENS_MAX, "an image's tokens")
    _integer(sees.side, 1, IMAGE_SIDE_MAX, "an image's side")
    for marks in (sees.before, sees.after):
        _require(type(marks) is tuple and len(marks) <= CARD_MARKS_MAX, "bad marks of an image")
        for token in marks:
            _integer(token, 0, card.n_vocab - 1, "a mark of an image")


def _check_source(source: ModelSource) -> None:
    """The names end in paths and addresses, so only plain ones pass: no `..`, no query."""
    for value, shape in (
        (source.hf_repo, _REPO),
        (source.filename, _FILENAME),
        (source.revision, _REVISION),
    ):
        _text(value, CARD_SOURCE_BYTES_MAX, "a source name")
        _require(bool(shape.fullmatch(value)), "a bad source name")


def _source(raw: Any) -> ModelSource | None:
    if raw is None:
        return None
    _require(type(raw) is tuple and len(raw) == 3, "a bad source")
    return ModelSource(hf_repo=raw[0], filename=raw[1], revision=raw[2])


def _sentence_pieces(raw: Any) -> SentencePieces | None:
    if raw is None:
        return None
    _require(type(raw) is tuple and len(raw) == 3, "bad sentence_pieces")
    return SentencePieces(scores=raw[0], space_first=raw[1], swallows=raw[2])


def _vision(raw: Any) -> Vision | None:
    if raw is None:
        return None
    _require(type(raw) is tuple and len(raw) == len(Vision.__slots__), "a bad vision")
    return Vision(**dict(zip(Vision.__slots__, raw, strict=True)))


def _pack_merges(merges: tuple[tuple[int, int], ...]) -> bytes:
    flat = [token for merge in merges for token in merge]
    return struct.pack(f"<{len(flat)}I", *flat)


def _unpack_merges(raw: Any) -> tuple[tuple[int, int], ...]:
    _require(type(raw) is bytes and len(raw) % 8 == 0, "merges are not pairs of u32")
    return tuple(struct.iter_unpack("<II", raw))


def _ascending(ids: object, n_vocab: int, most: int, name: str) -> None:
    _require(type(ids) is tuple, f"{name} is not a list")
    assert isinstance(ids, tuple)
    _require(len(ids) <= most, f"{name} is too long")
    before = -1
    for token in ids:
        _integer(token, before + 1, n_vocab - 1, name)
        before = token


def _integer(value: object, least: int, most: int, name: str) -> None:
    _require(type(value) is int and least <= value <= most, f"{name} is out of range")


def _text(value: object, most: int, name: str) -> None:
    _require(type(value) is str, f"{name} is not text")
    try:
        size = len(str(value).encode())
    except UnicodeEncodeError as error:
        raise ProtocolError("card_invalid", f"{name} is not UTF-8") from error
    _require(size <= most, f"{name} is too long")


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise ProtocolError("card_invalid", complaint)


def _byte_characters() -> tuple[str, ...]:
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    moved = iter(range(256, 512))
    return tuple(chr(byte) if byte in printable else chr(next(moved)) for byte in range(256))


# How byte-level BPE writes each byte as one character: GPT-2's `bytes_to_unicode` table, in which
# printable bytes stand for themselves and the others are moved to U+0100 and on.
BYTE_CHARACTERS: Final = _byte_characters()
