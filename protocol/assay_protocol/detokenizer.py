"""Tokens to text, piece by piece: a character is given out only when all its bytes are there.

Models emit bytes, and a character may span tokens. The text given so far is always whole
characters; bytes that can never become one turn into U+FFFD, as a browser would show them.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from assay_protocol.errors import ProtocolError


class Detokenizer:
    """Text of one answer, incrementally. `pieces` are a card's: the bytes of each token id."""

    __slots__ = ("_decoder", "_pieces")

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, tokens: Iterable[int]) -> str:
        """The whole characters that `tokens` complete, maybe "".

        Raises ProtocolError("malformed") for an id outside the vocabulary; the text of the tokens
        before it is then lost, as the stream is.
        """
        data = b"".join([self._piece(token) for token in tokens])
        return self._decoder.decode(data)

    @property
    def inside(self) -> bool:
        """Whether a character is begun and not whole."""
        return bool(self._decoder.getstate()[0])

    def flush(self) -> str:
        """What is left at the end of the answer: U+FFFD for an unfinished character, or ""."""
        return self._decoder.decode(b"", final=True)

    def _piece(self, token: int) -> bytes:
        if not 0 <= token < len(self._pieces):
            raise ProtocolError("malformed", "a token outside the model's vocabulary")
        return self._pieces[token]
