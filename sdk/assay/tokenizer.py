"""Text to tokens and back, from a model card alone, exactly as llama.cpp would do it.

The node checks a prompt's hash over token ids, so the client must tokenize as the model's own
vocabulary does. Byte-level BPE runs in the `tokenizers` library; the split into words is set by
the card's `tokenizer_pre`, as in llama.cpp (`src/llama-vocab.cpp`), and markers such as
`<|im_end|>` are cut out of the text before BPE sees it, longest first, as llama.cpp does.
Vocabularies of encoders ("bert") are WordPiece over lower-case words without accents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tokenizers import Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as _HfTokenizer

from assay_protocol.cards import BYTE_CHARACTERS, ModelCard, TokenType
from assay_protocol.detokenizer import Detokenizer
from assay_protocol.errors import AssayError, ProtocolError

_QWEN2_WORDS: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_WORDS: Final = _QWEN2_WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
# What `tokenizer_pre` means: (words, each digit alone, whole words before merges).
_PRE: Final[Mapping[str, tuple[str | None, bool, bool]]] = {
    "gpt-2": (None, False, False),
    "smollm": (None, True, False),
    "llama-bpe": (_LLAMA3_WORDS, False, True),
    "qwen2": (_QWEN2_WORDS, False, False),
}
_WORD_PIECE: Final = "bert"
_UNKNOWN: Final = "[UNK]"
_PARSED_ALWAYS: Final = frozenset({TokenType.USER_DEFINED})
_PARSED_SPECIAL: Final = frozenset({TokenType.USER_DEFINED, TokenType.CONTROL, TokenType.UNKNOWN})


class Tokenizer:
    """Encodes and decodes text for one model. Make it with `from_card`; it holds no file."""

    def __init__(self, card: ModelCard, bpe: _HfTokenizer) -> None:
        self._bpe = bpe
        self._pieces = card.pieces
        self._bos = card.bos if card.add_bos else None
        self._eos = card.eos if card.tokenizer_model == _WORD_PIECE else None
        self._control = _markers(card, _PARSED_SPECIAL)
        self._plain = _markers(card, _PARSED_ALWAYS)

    @classmethod
    def from_card(cls, card: ModelCard) -> Tokenizer:
        """A tokenizer for `card`.

        Raises AssayError "model_unknown" for a kind of vocabulary this client cannot tokenize,
        and "card_invalid" when the vocabulary contradicts itself.
        """
        if card.tokenizer_model == _WORD_PIECE:
            return cls(card, _word_piece(card))
        if card.tokenizer_model != "gpt2":
            raise AssayError(
                "model_unknown", f"no client tokenizer for {card.tokenizer_model!r} vocabularies"
            )
        if card.tokenizer_pre not in _PRE:
            known = ", ".join(_PRE)
            raise AssayError(
                "model_unknown",
                f"no client tokenizer for pre-tokenizer {card.tokenizer_pre!r}; known: {known}",
            )
        return cls(card, _byte_level_bpe(card))

    def encode(
        self, text: str, *, special: bool = True, bos: bool = False, eos: bool = False
    ) -> tuple[int, ...]:
        """Token ids of `text`.

        With `special`, control tokens written in the text become those tokens: for text of our
        own (templates), never for a user's. `bos` puts the model's start token first, if it has
        one, `eos` an encoder's last mark last. Raises AssayError("malformed") for text that is not
        UTF-8 (lone surrogates).
        """
        ids = [self._bos] if bos and self._bos is not None else []
        for part in self.split(text, special=special):
            ids += [part] if isinstance(part, int) else self._words(part)
        return (*ids, self._eos) if eos and self._eos is not None else tuple(ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text `ids` add to an answer; control tokens add none, broken bytes show as U+FFFD.

        Raises ProtocolError("malformed") for an id outside the vocabulary.
        """
        detokenizer = Detokenizer(self._pieces)
        return detokenizer.push(ids) + detokenizer.flush()

    def split(self, text: str, *, special: bool) -> Sequence[int | str]:
        """Marker tokens as ids and the text between them, not yet encoded."""
        parts: list[int | str] = [text] if text else []
        for marker, token in self._control if special else self._plain:
            if marker in text:
                parts = [piece for part in parts for piece in _cut(part, marker, token)]
        return parts

    def _words(self, text: str) -> list[int]:
        try:
            ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError) as error:
            raise AssayError("malformed", "the text is not UTF-8") from error
        return ids


def control_texts(card: ModelCard) -> tuple[str, ...]:
    """What a prompt must never contain by a user's doing: the markers that steer the model."""
    return tuple(text for text, _ in _markers(card, _PARSED_SPECIAL - _PARSED_ALWAYS))


def _markers(card: ModelCard, kinds: frozenset[TokenType]) -> list[tuple[str, int]]:
    """(text, id), longest first: a marker inside a longer one must not break it."""
    found = [(text, token) for token, text in card.texts if card.token_types[token] in kinds]
    return sorted(found, key=lambda marker: -len(marker[0].encode()))


def _cut(part: int | str, marker: str, token: int) -> list[int | str]:
    if isinstance(part, int):
        return [part]
    pieces: list[int | str] = []
    for i, text in enumerate(part.split(marker)):
        pieces += [token] if i else []
        pieces += [text] if text else []
    return pieces


def _byte_level_bpe(card: ModelCard) -> _HfTokenizer:
    words, digits_alone, whole_words = _PRE[card.tokenizer_pre]
    normal = {
        token: _byte_level_text(piece)
        for token, piece in enumerate(card.pieces)
        if card.token_types[token] == TokenType.NORMAL
    }
    vocabulary = {text: token for token, text in normal.items()}
    if len(vocabulary) != len(normal) or "" in vocabulary:
        raise ProtocolError("card_invalid", "two tokens stand for the same bytes, or for none")
    try:
        merges = [(normal[left], normal[right]) for left, right in card.merges]
        model = models.BPE(vocabulary, merges, ignore_merges=whole_words)
    except Exception as error:  # the library raises bare Exception for a merge that leads nowhere
        raise ProtocolError("card_invalid", "a merge of tokens that do not exist") from error
    bpe = _HfTokenizer(model)
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits_alone else []
    if words is not None:
        steps.append(pre_tokenizers.Split(Regex(words), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words is None))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return bpe


def _word_piece(card: ModelCard) -> _HfTokenizer:
    """llama.cpp marks pieces that begin a word, WordPiece those that do not."""
    texts = dict(card.texts)
    vocabulary: dict[str, int] = {}
    for token, piece in enumerate(card.pieces):
        text = piece.decode(errors="replace")
        begins = text.startswith(" ")
        vocabulary[texts.get(token) or (text[1:] if begins else f"##{text}")] = token
    if len(vocabulary) != len(card.pieces) or _UNKNOWN not in vocabulary:
        raise ProtocolError("card_invalid", "two tokens stand for the same text, or none for all")
    made = _HfTokenizer(models.WordPiece(vocabulary, unk_token=_UNKNOWN))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def _byte_level_text(piece: bytes) -> str:
    return "".join([BYTE_CHARACTERS[byte] for byte in piece])
