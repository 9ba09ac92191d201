"""The network between regions, and the stand-ins for cryptography."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol.errors import ProtocolError
from assay_protocol.messages import Progress
from assay_protocol.signing import open_signed, seal
from assay_simnet.keyed import KeyedIdentity, KeyedSealing, KeyedVerifier
from assay_simnet.links import FRAMING_BYTES, RESEND_US, Line, Links, Wire
from assay_simnet.seeds import Streams


def _links(jitter_us: int = 0, loss: float = 0.0) -> Links:
    return Links(Streams(4).stream("network"), "world-5", jitter_us, loss)


def test_a_connection_keeps_order() -> None:
    links, wire = _links(jitter_us=50_000), Wire()
    arrivals = [links.arrival(now, wire, "na", "eu") for now in range(0, 100_000, 1_000)]
    assert arrivals == sorted(arrivals)  # type: ignore[type-var]  # none is lost
    assert arrivals[0] is not None
    assert arrivals[0] >= 45_000


def test_a_lost_packet_is_a_delay() -> None:
    links = _links(loss=0.5)
    delays = [links.arrival(0, Wire(), "na", "na") for _ in range(400)]
    late = [one for one in delays if one is not None and one >= RESEND_US]
    assert len(late) / 400 == pytest.approx(0.5, abs=0.1)


def test_partitions_cut_and_heal() -> None:
    links, group = _links(), frozenset({"eu", "asia"})
    links.cut(group)
    assert links.arrival(0, Wire(), "eu", "na") is None
    assert links.arrival(0, Wire(), "na", "eu") is None
    assert links.arrival(0, Wire(), "eu", "asia") is not None
    links.heal(group)
    assert links.arrival(0, Wire(), "eu", "na") is not None
    links.cut(group, one_way=True)
    assert links.arrival(0, Wire(), "eu", "na") is None
    assert links.arrival(0, Wire(), "na", "eu") is not None


def test_reordered_messages_are_overtaken() -> None:
    links, wire = _links(), Wire()
    links.weather.reorder = 1.0
    first = links.arrival(0, wire, "na", "na")
    links.weather.reorder = 0.0
    second = links.arrival(1_000, wire, "na", "na")
    assert first is not None
    assert second is not None
    assert second < first


def _lasts(size: int, bits_per_s: float) -> int:
    return round(8e6 * (size + FRAMING_BYTES) / bits_per_s)


def test_a_message_takes_its_bytes_time_and_what_follows_waits() -> None:
    links, line = _links(), Line(up=1e6, down=8e6)
    first = links.arrival(0, Wire(), "na", "eu", 10_000, up=line)
    second = links.arrival(0, Wire(), "na", "na", 100, up=line)
    assert first == 45_000 + _lasts(10_000, 1e6)
    assert second == 10_000 + _lasts(10_000, 1e6) + _lasts(100, 1e6), "on another connection too"
    into = [links.arrival(0, Wire(), "eu", "na", 10_000, down=line) for _ in range(2)]
    assert into == [45_000 + n * _lasts(10_000, 8e6) for n in (1, 2)]
    later = links.arrival(10_000_000, Wire(), "na", "na", 100, up=line)
    assert later == 10_010_000 + _lasts(100, 1e6), "a queue empties"


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**5)), min_size=1))
def test_a_line_carries_no_more_than_its_rate(sent: list[tuple[int, int]]) -> None:
    line, now, left = Line(up=1e6), 0, 0
    for pause, size in sent:
        now += pause
        before, left = left, line.out(now, size)
        assert left - max(before, now) >= _lasts(size, 1e6)
    assert left <= now + sum(_lasts(size, 1e6) + pause for pause, size in sent)


def test_what_is_sent_through_a_clogged_line_comes_when_it_clears() -> None:
    links, line, wire = _links(), Line(), Wire()
    line.clogged_until_us = 5_000_000
    assert links.arrival(1_000_000, wire, "na", "eu", up=line) == 5_045_000
    assert links.arrival(1_000_000, Wire(), "eu", "na", down=line) == 5_000_000
    assert links.arrival(6_000_000, wire, "na", "eu", up=line) == 6_045_000
    assert line.is_slow(4_999_999)
    assert not line.is_slow(5_000_000)
    assert Line(down=1.0).is_slow(5_000_000)


@given(st.binary(min_size=1, max_size=200), st.binary(min_size=32, max_size=32))
def test_a_box_hides_and_opens(data: bytes, secret: bytes) -> None:
    sealing = KeyedSealing()
    sealed = sealing.seal(data, sealing.public_key(secret))
    assert sealing.open(sealed, secret) == data
    if len(data) >= 8:
        assert data not in sealed
    with pytest.raises(ProtocolError):
        sealing.open(sealed, bytes(byte ^ 1 for byte in secret))


@given(st.integers(0, 8 * 100))
def test_a_damaged_signature_is_refused(bit: int) -> None:
    me = KeyedIdentity(bytes(32))
    blob = bytearray(seal(me, Progress(ticket=bytes(16), count=3, output_hash=bytes(32))))
    assert open_signed(Progress, bytes(blob), me.public_key, KeyedVerifier()).count == 3
    blob[bit // 8 % len(blob)] ^= 1 << bit % 8
    with pytest.raises(ProtocolError):
        open_signed(Progress, bytes(blob), me.public_key, KeyedVerifier())
