"""Text to tokens and back, from a model card alone, exactly as llama.cpp would do it.

The node checks a prompt's hash over token ids, so the client must tokenize as the model's own
vocabulary does. Markers such as `<|im_end|>` are cut out of the text first, longest first, as
llama.cpp does; what lies between is for the kind of vocabulary the card names:

- "gpt2": byte-level BPE, with words cut as `tokenizer_pre` says (byte_level.py, word_rules.py);
- "gemma4": BPE over characters (byte_level.py);
- "llama": SentencePiece (sentence_pieces.py);
- "bert": WordPiece over lower-case words without accents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from tokenizers import Tokenizer as _HfTokenizer
from tokenizers import models, normalizers, pre_tokenizers

from assay.byte_level import ByteLevelBpe, CharacterBpe, merged
from assay.sentence_pieces import SentencePieceBpe
from assay.word_rules import WORD_RULES
from assay_protocol.cards import ModelCard, TokenType
from assay_protocol.detokenizer import Detokenizer
from assay_protocol.errors import AssayError, ProtocolError

_WORD_PIECE: Final = "bert"
_UNKNOWN: Final = "[UNK]"
_PARSED_ALWAYS: Final = frozenset({TokenType.USER_DEFINED})
_PARSED_SPECIAL: Final = frozenset({TokenType.USER_DEFINED, TokenType.CONTROL, TokenType.UNKNOWN})
# llama.cpp shows these of gpt-oss and calls them text, though they say who speaks. A user who
# typed them would speak as the system, so here they are tokens in templates only.
_SHOWN_CONTROLS: Final = frozenset(
    {"<|start|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|end|>"}
)
_SPACE: Final = " \t\n\v\f\r"  # C's isspace
_FILTER_CHARACTERS: Final = 3


class _Vocabulary(Protocol):
    """Text without markers to tokens."""

    def encode(self, text: str) -> Sequence[int]: ...


class Tokenizer:
    """Encodes and decodes text for one model. Make it with `from_card`; it holds no file."""

    def __init__(self, card: ModelCard, vocabulary: _Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._pieces = card.pieces
        self._bos = card.bos if card.add_bos else None
        self._eos = card.eos if card.tokenizer_model == _WORD_PIECE else None
        self._control = _Markers(_marked(card, _PARSED_SPECIAL))
        self._plain = _Markers(_plain(card))
        pieces = card.sentence_pieces
        self._space_first = pieces is not None and pieces.space_first
        self._swallows = frozenset(() if pieces is None else pieces.swallows)

    @classmethod
    def from_card(cls, card: ModelCard) -> Tokenizer:
        """A tokenizer for `card`.

        Raises AssayError "model_unknown" for a kind of vocabulary this client cannot tokenize,
        and "card_invalid" when the vocabulary contradicts itself.
        """
        return cls(card, _vocabulary(card))

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
            ids += (part,) if isinstance(part, int) else self._words(part)
        return (*ids, self._eos) if eos and self._eos is not None else tuple(ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text `ids` add to an answer; control tokens add none, broken bytes show as U+FFFD.

        Raises ProtocolError("malformed") for an id outside the vocabulary.
        """
        detokenizer = Detokenizer(self._pieces)
        return detokenizer.push(ids) + detokenizer.flush()

    def split(self, text: str, *, special: bool) -> Sequence[int | str]:
        """Marker tokens as ids and the text between them, not yet encoded."""
        parts: list[int | str] = []
        at = 0
        for start, stop, token in self._found(text, self._control if special else self._plain):
            parts += [text[at:start], token] if start > at else [token]
            at = stop
        return [*parts, text[at:]] if at < len(text) else parts

    def _found(self, text: str, markers: _Markers) -> list[tuple[int, int, int]]:
        """(start, end, token) of every marker, in order; the end is behind what it swallows."""
        taken = bytearray(len(text))
        found: list[tuple[int, int, int]] = []
        for marker, token in markers.within(text):
            at = text.find(marker)
            while at >= 0:
                stop = at + len(marker)
                clash = taken.rfind(1, at, stop)
                if clash >= 0:
                    at = text.find(marker, clash + 1)
                    continue
                if token in self._swallows:
                    while stop < len(text) and text[stop] in _SPACE and not taken[stop]:
                        stop += 1
                taken[at:stop] = b"\x01" * (stop - at)
                found.append((at, stop, token))
                at = text.find(marker, stop)
        return sorted(found)

    def _words(self, text: str) -> Sequence[int]:
        """Each piece of text follows a marker or begins the text: there a space goes first."""
        try:
            return self._vocabulary.encode(f" {text}" if self._space_first else text)
        except (UnicodeEncodeError, TypeError) as error:
            raise AssayError("malformed", "the text is not UTF-8") from error


class _Markers:
    """Markers in the order they are cut out: longest first, since one may hold another.

    Some vocabularies have thousands, nearly none of which a text holds: those that begin alike are
    looked for only where their beginning is there."""

    def __init__(self, found: Iterable[tuple[int, str]]) -> None:
        self._by_start: dict[str, list[tuple[str, int]]] = {}
        for token, text in found:
            self._by_start.setdefault(text[:_FILTER_CHARACTERS], []).append((text, token))

    def within(self, text: str) -> list[tuple[str, int]]:
        """(marker, token id) of those that `text` holds."""
        present = [
            (marker, token)
            for start, alike in self._by_start.items()
            if start in text
            for marker, token in alike
            if marker in text
        ]
        return sorted(present, key=lambda marker: (-len(marker[0].encode()), marker[1]))


def control_texts(card: ModelCard) -> tuple[str, ...]:
    """What a prompt must never contain by a user's doing: the markers that steer the model."""
    plain = frozenset(_plain(card))
    return tuple(
        text for token, text in _marked(card, _PARSED_SPECIAL) if (token, text) not in plain
    )


def plain_texts(card: ModelCard) -> tuple[str, ...]:
    """Markers anybody may write, such as `</think>`: one token each, and shown in answers."""
    return tuple(text for _, text in _plain(card))


def _marked(card: ModelCard, kinds: frozenset[TokenType]) -> list[tuple[int, str]]:
    return [(token, text) for token, text in card.texts if card.token_types[token] in kinds]


def _plain(card: ModelCard) -> list[tuple[int, str]]:
    marked = _marked(card, _PARSED_ALWAYS)
    return [(token, text) for token, text in marked if text not in _SHOWN_CONTROLS]


def _vocabulary(card: ModelCard) -> _Vocabulary:
    match card.tokenizer_model:
        case "bert":
            return _WordPiece(card)
        case "gpt2" if (rules := WORD_RULES.get(card.tokenizer_pre or "default")) is not None:
            return ByteLevelBpe(card, rules)
        case "gpt2":
            raise AssayError(
                "model_unknown", f"no client tokenizer for pre-tokenizer {card.tokenizer_pre!r}"
            )
        case "gemma4":
            return CharacterBpe(card)
        case "llama" if card.sentence_pieces is not None:
            return SentencePieceBpe(card)
        case "llama":
            raise AssayError(
                "model_unknown", "a card without scores, which a SentencePiece vocabulary needs"
            )
        case kind:
            raise AssayError("model_unknown", f"no client tokenizer for {kind!r} vocabularies")


class _WordPiece:
    def __init__(self, card: ModelCard) -> None:
        self._pieces = _word_piece(card)

    def encode(self, text: str) -> Sequence[int]:
        return merged(self._pieces, text)


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
