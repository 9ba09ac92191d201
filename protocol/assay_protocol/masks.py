"""Which tokens a grammar allows next: llguidance behind three calls, bounded and deterministic.

A pure function of (vocabulary, packed grammar, tokens so far), so auditors and clients find the
node's masks; DIALECT names the version that computes them, as another one may allow other tokens.
A text is bounded in bytes, and the work it asks for in llguidance's own counters, not in time: what
is too complex for one machine is so for all. Needs the `grammar` extra. Normative: spec/sampler.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper, __version__
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from numpy.typing import NDArray

from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.grammars import read_grammar

DIALECT: Final = f"llguidance-{__version__}"

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

Tokens = NDArray[np.int64]

# Found by trying grammars made to explode (docs/engine.md): a step stays near 10 ms.
_LIMITS: Final = LLParserLimits(
    max_items_in_row=500,
    initial_lexer_fuel=100_000,
    step_lexer_fuel=100_000,
    step_max_items=10_000,
    max_lexer_states=20_000,
    max_grammar_size=50_000,
    precompute_large_lexemes=False,
    verbose_errors=False,
)
# Written like Python's json.dumps: with free whitespace a small model may never come to an end.
_JSON: Final[JsonCompileOptions] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": False,
}
_PIECE_BYTES_MAX: Final = 32  # longer pieces are not looked for in forced text
_FORCED_BYTES_MAX: Final = 128  # of forced text are cut into tokens: the first one decides
_SPECIAL: Final = b"\xff"  # llguidance: what follows names a token that is no text


class Vocabulary:
    """A model's tokens as llguidance wants them: made once a model, about 0.1 s for 50,000."""

    def __init__(self, pieces: Sequence[bytes], eog: Sequence[int]) -> None:
        """`pieces[i]` are the bytes token i adds to an answer, none for control tokens."""
        self.n_vocab = len(pieces)
        self.eog = np.array(sorted(eog), np.int64)
        wrapped = TokenizerWrapper(_Pieces(pieces, frozenset(eog)))
        self.tokenizer = LLTokenizer(wrapped, n_vocab=len(pieces), eos_token=sorted(eog))


class Matcher:
    """One answer's way through a grammar. Every error is ProtocolError("grammar_refused")."""

    def __init__(self, vocabulary: Vocabulary, grammar: bytes, before: Sequence[int] = ()) -> None:
        """`before`: the tokens of the answer drawn already; raises if they do not follow it."""
        self._eog = vocabulary.eog
        self._n_vocab = vocabulary.n_vocab
        self._bits = allocate_token_bitmask(1, vocabulary.n_vocab)
        compiled = _compiled(*read_grammar(grammar))
        self._matcher = LLMatcher(vocabulary.tokenizer, compiled, log_level=0, limits=_LIMITS)
        self._check()
        self.allowed()  # what allows nothing at all is refused here, not in the middle of an answer
        for token in before:
            if not self.accept(token):
                raise ProtocolError("grammar_refused", "the answer so far does not follow it")

    def allowed(self) -> Tokens:
        """The ids that may come next, ascending; end tokens iff the grammar is complete."""
        fill_next_token_bitmask(self._matcher, self._bits)
        self._check()
        bits = np.unpackbits(self._bits.view(np.uint8)[0], bitorder="little")[: self._n_vocab]
        if not self._matcher.is_accepting():
            bits[self._eog] = 0  # a grammar may name any token, but not end an answer half-way
        found: Tokens = np.flatnonzero(bits)
        if not len(found):
            raise ProtocolError("grammar_refused", "the grammar allows no token here")
        return found

    def accept(self, token: int) -> bool:
        """Go on with `token`; False, and this is of no more use, if the grammar does not allow it.

        Raises if going on costs too much.
        """
        if token not in self.allowed():
            return False
        self._matcher.consume_token(token)
        self._check()
        return True

    def advance(self, token: int) -> None:
        """Go on with a token just found in `allowed`. The next call of `allowed` tells errors."""
        self._matcher.consume_token(token)

    def _check(self) -> None:
        """llguidance's own text may quote the grammar, so it is not passed on to any log."""
        if self._matcher.is_error():
            raise ProtocolError("grammar_refused", "unreadable, unsupported or too complex")


def explain(vocabulary: Vocabulary, grammar: bytes) -> str:
    """What llguidance finds wrong with a grammar, "" if nothing: for the one who wrote it."""
    try:
        compiled = _compiled(*read_grammar(grammar))
    except AssayError as error:
        return error.message
    matcher = LLMatcher(vocabulary.tokenizer, compiled, log_level=0, limits=_LIMITS)
    return matcher.get_error()


def _compiled(kind: str, text: str) -> str:
    if kind == "regex":
        return LLMatcher.grammar_from_regex(text)
    if kind == "lark":
        return LLMatcher.grammar_from_lark(text)
    try:
        if not isinstance(json.loads(text), dict):
            raise ProtocolError("grammar_refused", "a JSON schema is an object")
        return LLMatcher.grammar_from_json_schema(text, overrides=_JSON)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("grammar_refused", "the schema is not valid JSON") from error


class _Pieces:
    """What llguidance asks of a tokenizer. Text a grammar forces is cut greedily, longest first.

    Only its beginning: llguidance asks at every step anew, and needs no more than the next token.
    """

    def __init__(self, pieces: Sequence[bytes], eog: frozenset[int]) -> None:
        silent = [token for token, piece in enumerate(pieces) if not piece or token in eog]
        self.special_token_ids = silent
        self.tokens = list(pieces)
        for token in silent:
            self.tokens[token] = _SPECIAL + b"<%d>" % token
        self.eos_token_id, self.bos_token_id = min(eog), None
        hidden = frozenset(silent)
        self._ids: dict[bytes, int] = {}
        spares = _spares(pieces)
        for token in (*(i for i in range(len(pieces)) if i not in spares), *spares):
            if token not in hidden and len(pieces[token]) <= _PIECE_BYTES_MAX:
                self._ids.setdefault(pieces[token], token)

    def __call__(self, text: bytes) -> list[int]:
        found, at, end = [], 0, min(len(text), _FORCED_BYTES_MAX)
        while at < end:
            for size in range(min(_PIECE_BYTES_MAX, end - at), 0, -1):
                token = self._ids.get(bytes(text[at : at + size]))
                if token is not None:
                    found.append(token)
                    break
            else:
                break  # a byte without a token: llguidance goes on by itself from here
            at += size
        return found


def _spares(pieces: Sequence[bytes]) -> range:
    """The 256 tokens in a row, if there are such, that SentencePiece vocabularies keep for bytes.

    They stand for what no other token spells. A model that was never shown `<0x7B>` where `{` is a
    token would go on badly after it, though both add the same byte.
    """
    begin = next((i for i, piece in enumerate(pieces) if piece == b"\x00"), len(pieces))
    run = range(begin, begin + 256)
    whole = run.stop <= len(pieces) and all(pieces[begin + i] == bytes([i]) for i in range(256))
    return run if whole else range(0)
