"""Logprobs of a prompt that are made up, and the two ends of a stream that tells them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from assay_protocol.hashing import unpack_tokens
from assay_protocol.streams import ClientStream, NodeStream


def told_of(tokens: Sequence[int], rivals: int = 0, lie: float = 0.0) -> bytes:
    """What a node tells of prompt tokens: what follows from each alone, its own off by `lie`."""
    entries = [
        [(token, -0.25 * (1 + token % 8) - lie), *((r, -0.5 - r) for r in range(rivals))]
        for token in tokens
    ]
    return b"".join(struct.pack("<If", *pair) for entry in entries for pair in entry)


def tell(node: NodeStream, client: ClientStream, prompt: bytes) -> None:
    """All of a short packed prompt, if the ticket asks for it."""
    client.start(b"", prompt)
    if node.untold:
        rivals = node.ticket.sampler.prompt_logprobs or 0
        client.receive(node.tell(told_of(unpack_tokens(prompt)[1:], rivals)))
