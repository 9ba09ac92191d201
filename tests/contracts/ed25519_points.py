"""Points of edwards25519 in plain integers, so that tests can sign what no signer would."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha512
from typing import Final

from assay_contracts.ed25519_hints import D, P, x_of

L: Final = 2**252 + 27742317777372353535851937790883648493
Point = tuple[int, int]
IDENTITY: Final[Point] = (0, 1)


def add(a: Point, b: Point) -> Point:
    product = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P)
    return x % P, y % P


def times(number: int, point: Point) -> Point:
    total = IDENTITY
    while number:
        if number & 1:
            total = add(total, point)
        point, number = add(point, point), number >> 1
    return total


def encoded(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def _lifted(y: int) -> Point | None:
    x = x_of(y.to_bytes(32, "little"))
    return None if x is None else (x, y)


def _of_order_8() -> Point:
    for y in range(2, 100):
        point = _lifted(y)
        if point is not None and times(4, torsion := times(L, point)) != IDENTITY:
            return torsion
    raise AssertionError("a point in two has a part of order 8")


BASE: Final = (x_of((4 * pow(5, -1, P) % P).to_bytes(32, "little")) or 0, 4 * pow(5, -1, P) % P)
TORSION: Final = tuple(times(i, _of_order_8()) for i in range(8))
# Encodings of every point of small order, with either sign bit, and with y + p where that fits.
SMALL: Final = tuple(
    ((y + extra) | sign << 255).to_bytes(32, "little")
    for y in sorted({point[1] for point in TORSION})
    for extra in (0, P)
    if y + extra < 1 << 255
    for sign in (0, 1)
)
# y >= p of larger points, and a y that no point has.
UNREDUCED: Final = tuple((P + y).to_bytes(32, "little") for y in range(19) if _lifted(y))
OFF_CURVE: Final = next(y.to_bytes(32, "little") for y in range(100) if _lifted(y) is None)


@dataclass(frozen=True)
class Secret:
    """`number` * B + the torsion point `part`: its owner knows both."""

    number: int
    part: int = 0

    @property
    def point(self) -> Point:
        return add(times(self.number, BASE), TORSION[self.part % 8])


def challenge(r: bytes, key: bytes, message: bytes) -> int:
    return int.from_bytes(sha512(r + key + message).digest(), "little") % L


def forged(
    key: Secret, r: Secret, message: bytes, key_bytes: bytes = b"", r_bytes: bytes = b""
) -> tuple[bytes, bytes, int]:
    """(key, R, s) whose equation holds up to torsion; other bytes may take the points' place."""
    key_bytes = key_bytes or encoded(key.point)
    r_bytes = r_bytes or encoded(r.point)
    s = (r.number + challenge(r_bytes, key_bytes, message) * key.number) % L
    return key_bytes, r_bytes, s
