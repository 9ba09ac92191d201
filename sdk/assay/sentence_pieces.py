"""SentencePiece vocabularies ("llama": Llama 2, Mistral 7B, Phi-3, Gemma 1 to 3): llama.cpp's way.

Text is characters, with spaces written U+2581. Of all neighbours whose joined text is a token, the
pair with the best score is joined, of equal ones the leftmost, until none is left
(`llm_tokenizer_spm_session` in llama.cpp's `src/llama-vocab.cpp`); a character that is no token
becomes the tokens of its bytes. This is neither the Unigram model of the `tokenizers` library nor
its BPE, which has an order of pairs: here two pairs that make one token are equal.

A queue holds the pairs, so n characters cost O(n log n). Two things make prose fast and change no
token. Text is cut before a space wherever no token of the vocabulary has a space after that
character, since no pair could be joined across; and the tokens of short pieces are remembered.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from typing import Final

from assay.byte_level import SPACE_MARK, byte_texts
from assay_protocol.cards import ModelCard, TokenType
from assay_protocol.errors import ProtocolError

REMEMBERED_MAX: Final = 1 << 14
_REMEMBERED_CHARACTERS_MAX: Final = 32
_BYTES: Final = range(256)


class SentencePieceBpe:
    """Text without markers to tokens. Scores and the leading space are the card's."""

    def __init__(self, card: ModelCard) -> None:
        """Raises ProtocolError("card_invalid") for a vocabulary that contradicts itself."""
        assert card.sentence_pieces is not None
        texts = _texts(card)
        scores = struct.unpack(f"<{card.n_vocab}f", card.sentence_pieces.scores)
        self._ids = {text: token for token, text in texts.items()}
        if len(self._ids) != len(texts):
            raise ProtocolError("card_invalid", "two tokens stand for the same text")
        # A queue gives the least first.
        self._cost = {text: -scores[token] for text, token in self._ids.items() if len(text) > 1}
        self._longest = max(map(len, self._ids), default=1)
        self._bytes = [self._ids.get(f"<0x{byte:02X}>", -1) for byte in _BYTES]
        if -1 in self._bytes:
            raise ProtocolError("card_invalid", "no token for some byte")
        self._parts = _parts(self._ids)
        self._remembered = lru_cache(REMEMBERED_MAX)(self._joined)

    def encode(self, text: str) -> Sequence[int]:
        """Token ids of `text`, whose spaces may be spaces."""
        ids: list[int] = []
        for part in self._parts.findall(text.replace(" ", SPACE_MARK)):
            short = len(part) <= _REMEMBERED_CHARACTERS_MAX
            ids += self._remembered(part) if short else self._joined(part)
        return ids

    def _joined(self, text: str) -> tuple[int, ...]:
        """A symbol is text[i:ends[i]]; ends[i] is 0 where another one took it over."""
        cost, longest, n = self._cost, self._longest, len(text)
        ends = [*range(1, n + 1), 0]
        before = list(range(-1, n))
        queue = [
            (price, i, i + 2)
            for i in range(n - 1)
            if (price := cost.get(text[i : i + 2])) is not None
        ]
        heapify(queue)
        while queue:
            _, left, stop = heappop(queue)
            right = ends[left]
            if not right or right == stop or ends[right] != stop:
                continue  # one of the two was joined with another since
            ends[left], ends[right] = stop, 0
            before[stop] = left
            first = before[left]
            if first >= 0 and stop - first <= longest:
                price = cost.get(text[first:stop])
                if price is not None:
                    heappush(queue, (price, first, stop))
            last = ends[stop]
            if last and last - left <= longest:
                price = cost.get(text[left:last])
                if price is not None:
                    heappush(queue, (price, left, last))
        return self._tokens(text, ends)

    def _tokens(self, text: str, ends: list[int]) -> tuple[int, ...]:
        ids: list[int] = []
        at = 0
        while at < len(text):
            symbol = text[at : ends[at]]
            token = self._ids.get(symbol)
            if token is None:
                ids += [self._bytes[byte] for byte in symbol.encode()]
            else:
                ids.append(token)
            at = ends[at]
        return tuple(ids)


def _texts(card: ModelCard) -> dict[int, str]:
    """What the tokens that text may become are written as; none of them steers the model."""
    found = byte_texts(card)
    for token, piece in enumerate(card.pieces):
        if card.token_types[token] == TokenType.NORMAL:
            found[token] = piece.decode(errors="replace").replace(" ", SPACE_MARK)
    for token, text in card.texts:
        if card.token_types[token] in (TokenType.USER_DEFINED, TokenType.UNUSED):
            found[token] = text
    return found


def _parts(texts: dict[str, int]) -> re.Pattern[str]:
    """Finds the parts of a text that no token can reach beyond."""
    crossed = {
        text[i]
        for text in texts
        for i in range(len(text) - 1)
        if text[i + 1] == SPACE_MARK and text[i] != SPACE_MARK
    }
    part = rf"{SPACE_MARK}+[^{SPACE_MARK}]*|[^{SPACE_MARK}]+"
    if not crossed:
        return re.compile(part)
    held = "".join(map(re.escape, sorted(crossed)))
    return re.compile(rf"(?:{part})(?:(?<=[{held}]){SPACE_MARK}+[^{SPACE_MARK}]*)*")
