"""Byte-level BPE from a model card, token for token as llama.cpp does it.

Merging runs in the `tokenizers` library. What is added to it:

- A byte that no token stands for still keeps its neighbours apart, as in llama.cpp, and only then
  adds nothing. The library would drop it first and merge across.
- Tokens that steer the model are no part of the vocabulary that text is made of: no merge may lead
  to one. llama.cpp would follow such a merge; we know of no published vocabulary that has one.
- Vocabularies of Gemma 4 ("gemma4") are BPE over characters: spaces are written U+2581, lines are
  the words, a run of line feeds that is a token is that token, and an unknown character is its
  bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as _HfTokenizer

from assay.large_texts import LARGE_CHARACTERS
from assay.word_rules import WordRules
from assay_protocol.cards import BYTE_CHARACTERS, ModelCard, TokenType
from assay_protocol.errors import ProtocolError

SPACE_MARK: Final = "\u2581"
_STEERS: Final = frozenset({TokenType.CONTROL, TokenType.UNKNOWN})
_LINES: Final = re.compile(r"\n+|[^\n]+")


class ByteLevelBpe:
    """Text without markers to tokens, for vocabularies whose characters stand for bytes."""

    def __init__(self, card: ModelCard, rules: WordRules) -> None:
        """Raises ProtocolError("card_invalid") for a vocabulary that contradicts itself."""
        texts = _texts(card, _byte_level_text)
        self._n_vocab = card.n_vocab
        known = set(texts.values())
        missing = [character for character in BYTE_CHARACTERS if character not in known]
        beyond = {character: card.n_vocab + i for i, character in enumerate(missing)}
        self._bpe = _merging(card, texts, beyond, ignore_merges=rules.whole_words)
        steps: list[Any] = [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in rules.patterns
        ]
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        self._bpe.pre_tokenizer = pre_tokenizers.Sequence(steps)

    def encode(self, text: str) -> Sequence[int]:
        """Token ids of `text`; a byte without a token adds none."""
        ids = merged(self._bpe, text)
        return ids if max(ids, default=0) < self._n_vocab else self._known(ids)

    def _known(self, ids: list[int]) -> list[int]:
        return [token for token in ids if token < self._n_vocab]


class CharacterBpe:
    """Text without markers to tokens, for vocabularies of Gemma 4."""

    def __init__(self, card: ModelCard) -> None:
        """Raises ProtocolError("card_invalid") for a vocabulary that contradicts itself."""
        singles = byte_texts(card)
        if len(set(singles.values())) < len(BYTE_CHARACTERS):
            raise ProtocolError("card_invalid", "no token for some byte")
        texts = _texts(card, _spaced_text) | singles
        self._runs = {text: token for token, text in texts.items() if not text.strip("\n")}
        self._bpe = _merging(card, texts, {}, byte_fallback=True)

    def encode(self, text: str) -> Sequence[int]:
        """Token ids of `text`."""
        ids: list[int] = []
        for line in _LINES.findall(text.replace(" ", SPACE_MARK)):
            token = self._runs.get(line)
            if token is None:
                ids += merged(self._bpe, line)
            else:
                ids.append(token)
        return ids


def merged(library: _HfTokenizer, text: str) -> list[int]:
    """Token ids. The library keeps the interpreter to itself while it reads one text, seconds for
    megabytes, and not while it reads several; so a large one goes as the only one of several."""
    if len(text) < LARGE_CHARACTERS:
        ids: list[int] = library.encode(text, add_special_tokens=False).ids
    else:
        ids = library.encode_batch([text], add_special_tokens=False)[0].ids
    return ids


def byte_texts(card: ModelCard) -> dict[int, str]:
    """How vocabularies over characters write their tokens for single bytes."""
    kinds, pieces = card.token_types, card.pieces
    return {
        token: f"<0x{pieces[token][0]:02X}>"
        for token in range(card.n_vocab)
        if kinds[token] == TokenType.BYTE and len(pieces[token]) == 1
    }


def _texts(card: ModelCard, of_piece: Any) -> dict[int, str]:
    """What the tokens that text may become are written as. Markers are written as they are."""
    texts = dict(card.texts)
    found = {
        token: of_piece(piece)
        for token, piece in enumerate(card.pieces)
        if card.token_types[token] == TokenType.NORMAL
    }
    for token, text in texts.items():
        if card.token_types[token] not in _STEERS:
            found[token] = text
    if len(set(found.values())) != len(found) or "" in found.values():
        raise ProtocolError("card_invalid", "two tokens stand for the same bytes, or for none")
    return found


def _merging(
    card: ModelCard, texts: dict[int, str], beyond: dict[str, int], **options: bool
) -> _HfTokenizer:
    steering = {text for token, text in card.texts if card.token_types[token] in _STEERS}
    merges: dict[tuple[str, str], None] = {}  # of a merge that is there twice the first counts
    for left, right in card.merges:
        if left in texts and right in texts and texts[left] + texts[right] not in steering:
            merges[texts[left], texts[right]] = None
    vocabulary = {text: token for token, text in texts.items()} | beyond
    try:
        return _HfTokenizer(models.BPE(vocabulary, list(merges), **options))
    except Exception as error:  # the library raises bare Exception for a merge that leads nowhere
        raise ProtocolError("card_invalid", "a merge of tokens that do not exist") from error


def _byte_level_text(piece: bytes) -> str:
    return "".join([BYTE_CHARACTERS[byte] for byte in piece])


def _spaced_text(piece: bytes) -> str:
    return piece.decode(errors="replace").replace(" ", SPACE_MARK)
