"""The contract and libsodium give one verdict, on signatures that no honest signer makes too."""

import json
from dataclasses import replace
from pathlib import Path

import pyrevm
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay_contracts import calls
from assay_contracts.artefact import load
from assay_contracts.ed25519_hints import HintedSignature, P, hinted, signed, x_of
from assay_protocol.errors import AssayError
from assay_protocol.signing import ED25519, Identity
from contracts.ed25519_points import (
    OFF_CURVE,
    SMALL,
    UNREDUCED,
    L,
    Secret,
    challenge,
    encoded,
    forged,
)

WYCHEPROOF = json.loads((Path(__file__).parent / "vectors/wycheproof_ed25519.json").read_text())
ME = "0x" + "11" * 20
VERIFY_GAS_MAX = 230_000  # a whole transaction over a message of 32 bytes
SOME = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
scalars = st.integers(1, L - 1)
messages = st.binary(max_size=1_024)


class Verifier:
    """The contract alone in an EVM."""

    def __init__(self) -> None:
        self._evm = pyrevm.EVM(spec_id="PRAGUE")
        self._address = self._evm.deploy(ME, calls.constructor("Ed25519Verifier"))

    def verify(self, key: bytes, message: bytes, signature: HintedSignature) -> bool:
        data = calls.encode("Ed25519Verifier", "verify", key, message, signature)
        output = bytes(self._evm.message_call(ME, self._address, calldata=data))
        (answer,) = calls.decode("Ed25519Verifier", "verify", output)
        return bool(answer)

    def gas(self) -> int:
        assert self._evm.result is not None
        return int(self._evm.result.gas_used)


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    return Verifier()


def agreed(verifier: Verifier, key: bytes, message: bytes, signature: bytes) -> bool:
    """The verdict of both."""
    judged = ED25519.verify(key, message, signature)
    assert verifier.verify(key, message, hinted(key, signature)) == judged
    return judged


@pytest.mark.parametrize("length", [0, 1, 32, 46, 47, 48, 63, 64, 127, 128, 175, 176, 1_023, 1_024])
def test_signatures_of_every_number_of_blocks(verifier: Verifier, length: int) -> None:
    identity, message = Identity(bytes([length % 256]) * 32), bytes(range(256)) * 4
    signature = signed(identity, message[:length])
    assert verifier.verify(identity.public_key, message[:length], signature)
    assert not verifier.verify(identity.public_key, message[:length][:-1] + b"x", signature)


def test_a_message_beyond_the_limit_is_refused_by_name(verifier: Verifier) -> None:
    identity = Identity(bytes(32))
    with pytest.raises(RuntimeError, match=error_selector("MessageTooLong")):
        verifier.verify(identity.public_key, bytes(1_025), signed(identity, bytes(1_025)))


def error_selector(error: str) -> str:
    (selector,) = (key for key, name in load("Ed25519Verifier").errors.items() if name == error)
    return selector.hex()


@pytest.mark.parametrize("case", WYCHEPROOF["tests"], ids=lambda case: f"tc{case[0]}")
def test_wycheproof(verifier: Verifier, case: tuple[int, str, str, str, str]) -> None:
    _, key, message, signature, result = case
    parts = (bytes.fromhex(part) for part in (key, message, signature))
    assert agreed(verifier, *parts) == (result == "valid")


@SOME
@given(seed=st.binary(min_size=32, max_size=32), message=messages, bit=st.integers(0, 10**6))
def test_one_wrong_bit_anywhere(verifier: Verifier, seed: bytes, message: bytes, bit: int) -> None:
    identity = Identity(seed)
    whole = bytearray(identity.public_key + identity.sign(message) + message)
    key, signature = bytes(whole[:32]), bytes(whole[32:96])
    assert agreed(verifier, key, message, signature)
    bit %= len(whole) * 8
    whole[bit // 8] ^= 1 << bit % 8
    assert not agreed(verifier, bytes(whole[:32]), bytes(whole[96:]), bytes(whole[32:96]))


@SOME
@given(scalars, scalars, st.integers(0, 7), st.integers(0, 7), st.binary(max_size=3))
def test_points_of_mixed_order(
    verifier: Verifier, key: int, r: int, key_part: int, r_part: int, message: bytes
) -> None:
    made = forged(Secret(key, key_part), Secret(r, r_part), message)
    signature = made[1] + made[2].to_bytes(32, "little")
    if agreed(verifier, made[0], message, signature):
        return
    assert key_part or r_part  # the equation holds only up to torsion


def test_some_points_of_mixed_order_pass(verifier: Verifier) -> None:
    """So the test above is no test of refusals alone: a key with torsion can sign."""
    verdicts = set()
    for number in range(24):
        message = bytes([number])
        key, r, s = forged(Secret(5, 4), Secret(9), message)
        verdicts.add(agreed(verifier, key, message, r + s.to_bytes(32, "little")))
    assert verdicts == {True, False}


@pytest.mark.parametrize("key", [*SMALL, *UNREDUCED, OFF_CURVE], ids=lambda key: key.hex()[:8])
def test_a_bad_key_signs_nothing(verifier: Verifier, key: bytes) -> None:
    for number in range(8):
        message = bytes([number])
        # With a key of small order s = r is a signature for one message in eight, or all.
        _, r, s = forged(Secret(0), Secret(77), message, key_bytes=key)
        assert not agreed(verifier, key, message, r + s.to_bytes(32, "little"))


@pytest.mark.parametrize("r", [*SMALL, *UNREDUCED, OFF_CURVE], ids=lambda r: r.hex()[:8])
def test_a_bad_r_is_no_signature(verifier: Verifier, r: bytes) -> None:
    for number in range(4):
        message = bytes([number])
        key, _, s = forged(Secret(77), Secret(0), message, r_bytes=r)
        assert not agreed(verifier, key, message, r + s.to_bytes(32, "little"))


@SOME
@given(
    st.sampled_from([*SMALL, *UNREDUCED, OFF_CURVE, encoded(Secret(77).point)]),
    st.sampled_from([*SMALL, *UNREDUCED, OFF_CURVE, encoded(Secret(78, 3).point)]),
    st.sampled_from([0, 1, 8, L - 1, L, L + 1, 2**252, 2**253 - 1, 2**255, 2**256 - 1]),
    st.binary(max_size=2),
)
def test_edges_crossed(verifier: Verifier, key: bytes, r: bytes, s: int, message: bytes) -> None:
    agreed(verifier, key, message, r + s.to_bytes(32, "little"))


@pytest.mark.parametrize("times", range(1, 16))
def test_s_has_one_form(verifier: Verifier, times: int) -> None:
    key, r, s = forged(Secret(3), Secret(4), b"m")
    assert agreed(verifier, key, b"m", r + s.to_bytes(32, "little"))
    if s + times * L < 2**256:
        assert not agreed(verifier, key, b"m", r + (s + times * L).to_bytes(32, "little"))


def test_scalars_at_their_ends(verifier: Verifier) -> None:
    for number in (1, 2, 3, 4, L - 1, L - 2, 2**252, 2**128, 2**128 - 1):
        for r in (1, L - 1, 2**128):
            key, point, s = forged(Secret(number), Secret(r), b"m")
            assert agreed(verifier, key, b"m", point + s.to_bytes(32, "little"))


@SOME
@given(st.integers(0, 2**256 - 1), st.sampled_from(["key_x", "r_x"]))
def test_a_wrong_hint_loses_the_signature(verifier: Verifier, hint: int, which: str) -> None:
    identity = Identity(bytes([8]) * 32)
    good = signed(identity, b"m")
    assert verifier.verify(identity.public_key, b"m", good)
    right = getattr(good, which)
    for wrong in {hint, P - right, right + P, 0, P} - {right}:
        bent = replace(good, **{which: wrong})
        assert not verifier.verify(identity.public_key, b"m", bent)


@SOME
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64))
def test_no_hints_make_a_bad_signature_good(verifier: Verifier, key: bytes, made: bytes) -> None:
    xs = (x_of(key) or 0, x_of(made[:32]) or 0)
    for key_x in (xs[0], P - xs[0], 1):
        for r_x in (xs[1], P - xs[1], 1):
            bent = HintedSignature(made[:32], made[32:], key_x % P, r_x % P)
            assert not verifier.verify(key, b"m", bent)


@pytest.mark.parametrize("negated", ["key_x", "r_x"])
@pytest.mark.parametrize("whole", [P, 2 * P])
def test_a_hint_cannot_stand_for_the_opposite_point(
    verifier: Verifier, negated: str, whole: int
) -> None:
    """`s` fits -A or -R: the x of those is P - x, which has another last bit, or 2P - x."""
    key, r = Secret(11), Secret(13)
    key_bytes, r_bytes = encoded(key.point), encoded(r.point)
    k = challenge(r_bytes, key_bytes, b"m")
    signs = (-1, 1) if negated == "key_x" else (1, -1)
    s = (signs[1] * r.number + k * signs[0] * key.number) % L
    good = hinted(key_bytes, r_bytes + s.to_bytes(32, "little"))
    assert not verifier.verify(key_bytes, b"m", good)
    bent = replace(good, **{negated: whole - getattr(good, negated)})
    assert not verifier.verify(key_bytes, b"m", bent)


def test_the_hints_are_the_points_x() -> None:
    for number in range(1, 20):
        point = Secret(number).point
        assert x_of(encoded(point)) == point[0]
    assert x_of(OFF_CURVE) is None
    with pytest.raises(AssayError, match="malformed"):
        hinted(bytes(31), bytes(64))


def test_gas(verifier: Verifier) -> None:
    identity, message = Identity(bytes([1]) * 32), bytes(range(32))
    assert verifier.verify(identity.public_key, message, signed(identity, message))
    print(f"ed25519_verify_gas {verifier.gas()}")
    assert verifier.gas() <= VERIFY_GAS_MAX
