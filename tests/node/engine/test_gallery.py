"""Images are encoded once, in turns, beside the loop, and what is kept of them is bounded."""

from __future__ import annotations

import threading
from collections import Counter
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from assay_node.engine.gallery import LOOKING_MAX, Gallery, Request
from assay_node.engine.interface import Generate
from assay_node.engine.spans import Seen
from assay_protocol.errors import AssayError
from assay_protocol.limits import IMAGES_MAX
from assay_protocol.messages import Image, Sampler

SAMPLER = Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)
BROKEN = 255
IMAGE_BYTES = 9 * 4


class FakeProjector:
    """Nine positions of one number, the image's color; waits while `gate` is shut."""

    tokens, whole, image_bytes = 9, False, IMAGE_BYTES

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.encoded: Counter[int] = Counter()

    def encode(self, image: Image) -> NDArray[np.float32]:
        assert self.gate.wait(10)
        color = image.pixels[0]
        if color == BROKEN:
            raise AssayError("image_refused")
        self.encoded[color] += 1
        return np.full((9, 1), color, np.float32)

    def close(self) -> None:
        pass


def _request(*colors: int, tenant: bytes = b"") -> Generate:
    images = tuple(Image(width=1, height=1, pixels=bytes([color] * 3)) for color in colors)
    return Generate((1,), 0, 1, SAMPLER, bytes(32), tenant=tenant, images=images)


def _gallery(images_max: int = IMAGES_MAX) -> tuple[Gallery, FakeProjector]:
    projector = FakeProjector()
    gallery = Gallery(projector, images_max * IMAGE_BYTES)  # type: ignore[arg-type]
    return gallery, projector


def _settled(gallery: Gallery) -> list[tuple[int, str]]:
    """What became of every job that found room, by the order in which it did."""
    found: list[tuple[int, Request, AssayError | None]] = []
    for _ in range(1_000):
        more = gallery.ready(block=True)
        found += more
        if not more and gallery._encoding is None:
            break
    return [(job, "" if error is None else error.code) for job, _, error in found]


def test_an_image_is_encoded_once_for_all_who_ask_about_it() -> None:
    gallery, projector = _gallery()
    gallery.look(1, _request(7, 8, 7))
    gallery.look(2, _request(8))
    assert bool(gallery)
    assert _settled(gallery) == [(1, ""), (2, "")]
    assert not gallery
    assert projector.encoded == {7: 1, 8: 1}
    rows = gallery.rows(1, Seen(1, 2, False), 3)
    assert rows.tolist() == [[8.0]] * 3
    assert gallery.rows(1, Seen(2, 0, False), 9).tolist() == [[7.0]] * 9
    gallery.drop(1)
    gallery.drop(2)
    gallery.look(3, _request(7))
    assert _settled(gallery) == [(3, "")]
    assert projector.encoded[7] == 1
    gallery.close()


def test_what_no_job_needs_makes_room_the_longest_unused_first() -> None:
    gallery, projector = _gallery()
    for color in range(IMAGES_MAX + 2):
        gallery.look(color, _request(color))
        assert _settled(gallery) == [(color, "")]
        gallery.drop(color)
        assert len(gallery._kept) <= IMAGES_MAX
    for color, times in ((IMAGES_MAX + 1, 1), (0, 2)):
        gallery.look(color, _request(color))
        assert _settled(gallery) == [(color, "")]
        assert projector.encoded[color] == times
    gallery.close()


def test_a_job_without_room_waits_until_others_are_over() -> None:
    gallery, projector = _gallery()
    gallery.look(1, _request(*range(IMAGES_MAX)))
    gallery.look(2, _request(100))
    gallery.look(3, _request(2))  # whose image is there; it passes nobody
    assert _settled(gallery) == [(1, "")]
    assert bool(gallery)
    assert projector.encoded[100] == 0
    gallery.drop(1)
    assert _settled(gallery) == [(2, ""), (3, "")]
    gallery.look(4, _request(*range(10, 10 + IMAGES_MAX)))
    assert _settled(gallery) == []
    gallery.drop(4)  # given up while it waited
    assert not gallery
    assert gallery.rows(3, Seen(0, 0, False), 9)[0, 0] == 2.0
    gallery.close()


def test_tenants_take_turns() -> None:
    gallery, projector = _gallery(100)
    projector.gate.clear()
    for job in range(6):
        gallery.look(job, _request(*range(8 * job, 8 * job + 8), tenant=b"flood"))
    gallery.look(6, _request(200, tenant=b"other"))
    assert gallery.ready(block=False) == []
    projector.gate.set()
    assert [job for job, _ in _settled(gallery)].index(6) <= 2
    gallery.close()


def test_an_image_that_cannot_be_encoded_fails_those_who_asked_and_nobody_else() -> None:
    gallery, _ = _gallery()
    gallery.look(1, _request(1, BROKEN))
    gallery.look(2, _request(1))
    assert _settled(gallery) == [(1, "image_refused"), (2, "")]
    assert gallery._holders.keys() == {2}
    gallery.close()


def test_a_job_given_up_while_its_image_is_encoded_leaves_nothing_behind() -> None:
    gallery, projector = _gallery()
    projector.gate.clear()
    gallery.look(1, _request(1, 2))
    gallery.look(2, _request(3))
    gallery.look(3, _request(BROKEN))
    assert gallery.ready(block=False) == []
    for job in (1, 3, 99):
        gallery.drop(job)
    projector.gate.set()
    assert _settled(gallery) == [(2, "")]
    assert projector.encoded == {1: 1, 3: 1}
    assert gallery._holders.keys() == {2}
    gallery.close()


def test_too_many_at_once_are_refused() -> None:
    gallery, projector = _gallery()
    projector.gate.clear()
    for job in range(LOOKING_MAX):
        gallery.look(job, _request(1))
    with pytest.raises(AssayError) as refused:
        gallery.look(LOOKING_MAX, _request(1))
    assert refused.value.code == "busy"
    projector.gate.set()
    gallery.close()
    assert cast(FakeProjector, gallery._projector).encoded.total() <= 1
