"""Boxes sealed with seeded keys are libsodium's boxes, and the same again."""

from __future__ import annotations

import pytest
from nacl.public import PrivateKey, SealedBox

from assay_node.core.sealing import NaclSealing
from assay_protocol.errors import ProtocolError
from assay_simnet.seeded_sealing import SeededSealing

SECRET = bytes(range(32))


def test_production_opens_them() -> None:
    sealing, public = SeededSealing(bytes(32)), NaclSealing().public_key(SECRET)
    box = sealing.seal(b"a prompt", public)
    assert NaclSealing().open(box, SECRET) == b"a prompt"
    assert SealedBox(PrivateKey(SECRET)).decrypt(box) == b"a prompt"
    assert sealing.seal(b"a prompt", public) != box, "each has a key of its own"
    assert SeededSealing(bytes(32)).seal(b"a prompt", public) == box


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(ProtocolError):
        SeededSealing(bytes(32)).seal(b"a prompt", b"short")
