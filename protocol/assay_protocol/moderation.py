"""What a moderation policy refuses: phrases looked for in a prompt, exactly and in linear time.

Prompt and phrase are compared in one form: NFKC, then case folded, then each run of white space as
one space. A prompt is refused if a phrase stands anywhere in it; words are not told apart, nothing
is guessed, and no part of either is kept or logged. The search is that of Aho and Corasick (1975):
its time grows with the prompt alone, however many phrases there are.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import groupby
from typing import Final

from assay_protocol.detokenizer import Detokenizer
from assay_protocol.errors import ProtocolError
from assay_protocol.images import IMAGE_TOKEN, holds_images
from assay_protocol.limits import POLICY_BYTES_MAX
from assay_protocol.messages import ModerationPolicy
from assay_protocol.signing import ED25519, PUBLIC_KEY_BYTES, Signer, Verifier, open_signed, seal

_SPACES: Final = re.compile(r"\s+")


def comparable(text: str) -> str:
    """`text` in the form in which prompts and phrases are compared."""
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", text).casefold())


class Phrases:
    """A fixed set of phrases. An empty one, in the form compared, is in no text."""

    __slots__ = ("_ends", "_fails", "_starts", "_steps")

    def __init__(self, phrases: Iterable[str]) -> None:
        self._steps: list[dict[str, int]] = [{}]  # by state: where a character leads
        self._ends: list[bool] = [False]  # whether a phrase ends there
        for phrase in phrases:
            self._add(comparable(phrase))
        self._fails = self._linked()  # the longest end of a state that begins a phrase as well
        self._starts = self._steps[0]

    def in_text(self, text: str) -> bool:
        """Whether a phrase stands in `text`, which need not be in the form compared."""
        steps, fails, ends, starts = self._steps, self._fails, self._ends, self._starts
        state = 0
        for character in comparable(text):
            while state and character not in steps[state]:
                state = fails[state]
            state = (steps[state] if state else starts).get(character, 0)
            if ends[state]:
                return True
        return False

    def _add(self, phrase: str) -> None:
        if not phrase:
            return
        state = 0
        for character in phrase:
            following = self._steps[state].get(character)
            if following is None:
                following = self._steps[state][character] = len(self._steps)
                self._steps.append({})
                self._ends.append(False)
            state = following
        self._ends[state] = True

    def _linked(self) -> list[int]:
        fails = [0] * len(self._steps)
        waiting = deque(self._steps[0].values())
        while waiting:  # by growing depth, so the states led to are linked already
            state = waiting.popleft()
            for character, following in self._steps[state].items():
                back = fails[state]
                while back and character not in self._steps[back]:
                    back = fails[back]
                fails[following] = self._steps[back].get(character, 0)
                self._ends[following] |= self._ends[fails[following]]
                waiting.append(following)
        return fails


def text_of(pieces: Sequence[bytes], tokens: Sequence[int]) -> str:
    """The text of a prompt by its model's own vocabulary; control tokens add nothing to it, and an
    image a space, so that it hides a phrase no better than a space does.

    Raises ProtocolError("malformed") for an id outside the vocabulary.
    """
    detokenizer = Detokenizer(pieces)
    if not holds_images(tokens):
        return detokenizer.push(tokens) + detokenizer.flush()
    runs = groupby(tokens, key=lambda token: token >= IMAGE_TOKEN)
    texts = (
        f"{detokenizer.flush()} " if is_image else detokenizer.push(run) for is_image, run in runs
    )
    return "".join(texts) + detokenizer.flush()


def policy_digest(blob: bytes) -> bytes:
    """What the chain says of a signed policy: the sha256 of its bytes."""
    return sha256(blob).digest()


def open_policy(blob: bytes, author: bytes, verifier: Verifier = ED25519) -> ModerationPolicy:
    """The policy in `blob`. Raises ProtocolError("rules_invalid") unless `author` signed it."""
    try:
        return open_signed(ModerationPolicy, blob, author, verifier)
    except ProtocolError as error:
        raise ProtocolError("rules_invalid", f"the moderation policy: {error.message}") from error


def pack_policy(signer: Signer, policy: ModerationPolicy) -> bytes:
    """A policy file: the author's key, then the policy as it signed it."""
    return signer.public_key + seal(signer, policy)


def unpack_policy(file: bytes) -> tuple[bytes, bytes, ModerationPolicy]:
    """Of a policy file the author's key, the signed policy, and what that says.

    Raises ProtocolError("rules_invalid").
    """
    author, blob = file[:PUBLIC_KEY_BYTES], file[PUBLIC_KEY_BYTES:]
    if len(blob) > POLICY_BYTES_MAX:
        raise ProtocolError("rules_invalid", f"a policy has at most {POLICY_BYTES_MAX} bytes")
    return author, blob, open_policy(blob, author)
