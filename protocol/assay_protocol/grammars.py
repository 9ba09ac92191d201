"""Grammars as they travel: a kind and a text, committed to by a salted hash like the prompt.

A schema can tell what a prompt is about, so a ticket carries only `grammar_hash`; the text goes
from the client to the node, and sealed to auditors. What a text allows is computed in masks.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from assay_protocol.errors import ProtocolError
from assay_protocol.hashing import grammar_hash
from assay_protocol.limits import GRAMMAR_BYTES_MAX

if TYPE_CHECKING:
    from assay_protocol.messages import Sampler

KINDS: Final = ("json_schema", "regex", "lark")


def pack_grammar(kind: str, text: str) -> bytes:
    """The bytes that are hashed and sent: the kind's name, a newline, the text in UTF-8.

    Raises ProtocolError("grammar_refused") if they are too many or the kind is not known.
    """
    try:
        packed = f"{kind}\n{text}".encode()
    except UnicodeEncodeError as error:
        raise ProtocolError("grammar_refused", "the grammar is not Unicode text") from error
    read_grammar(packed)
    return packed


def read_grammar(packed: bytes) -> tuple[str, str]:
    """Kind and text; raises ProtocolError("grammar_refused")."""
    if len(packed) > GRAMMAR_BYTES_MAX:
        raise ProtocolError("grammar_refused", f"a grammar has at most {GRAMMAR_BYTES_MAX} bytes")
    kind, newline, text = packed.partition(b"\n")
    if not newline or kind.decode("ascii", "replace") not in KINDS:
        raise ProtocolError(
            "grammar_refused", f"the kind of a grammar is one of {', '.join(KINDS)}"
        )
    try:
        return kind.decode(), text.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError("grammar_refused", "the grammar is not UTF-8") from error


def grammar_fits(sampler: Sampler, nonce: bytes, grammar: bytes | None) -> bool:
    """Whether `grammar` is what the sampler commits to: its preimage, or nothing where it does not.

    A sampler without a commitment is drawn by no grammar: one that came all the same is a mistake.
    """
    if sampler.grammar is None or grammar is None:
        return sampler.grammar is None and grammar is None
    return grammar_hash(nonce, grammar) == sampler.grammar
