"""Logarithm, exponential, power, cosine and gamma with the same bits on every machine.

The C library's and numpy's differ in the last bit between CPUs: with and without fused
multiply-add, with AVX2 or AVX-512 (docs/decisions/0025-one-digest.md). What is then rounded to an
integer falls on the other side now and then. These are made of IEEE 754 additions, multiplications
and divisions, each rounded alone, as Python does them wherever it runs; their tables come from
`decimal`, which is software. tests/protocol/test_elementary.py has their errors.

Method: reduction by a table, then a short series (Tang 1989, 1990; Stirling for gamma).
"""

from __future__ import annotations

from decimal import Context, Decimal
from math import frexp, ldexp
from typing import Final

_WIDE: Final = Context(prec=40)
_ROOT_HALF: Final = 0.7071067811865476
_STEPS: Final = 256  # of one; numbers are reduced to [sqrt(1/2), sqrt(2))
_STEPS_MAX: Final = 363
_BACK: Final = tuple(_STEPS / max(1, at) for at in range(_STEPS_MAX))
_LOGS: Final = tuple(-float(_WIDE.ln(Decimal(back))) for back in _BACK)
_LN2: Final = _WIDE.ln(Decimal(2))
_LN2_FLOAT: Final = float(_LN2)
_PARTS: Final = 64  # of a power of two
_SHARE: Final = float(_LN2 / _PARTS)
_SHARE_HIGH: Final = int(ldexp(_SHARE, 38)) * 2.0**-38  # its multiples by 2^17 are exact
_SHARE_LOW: Final = float(_LN2 / _PARTS - Decimal(_SHARE_HIGH))
_POWERS: Final = tuple(float(_WIDE.exp(_LN2 * at / _PARTS)) for at in range(_PARTS))
_EXPONENT_MAX: Final = 700.0
_PI: Final = 3.141592653589793
_COSINE: Final = (  # (-1)^k / (2k)!, highest first
    *(1 / 2_432_902_008_176_640_000, -1 / 6_402_373_705_728_000, 1 / 20_922_789_888_000),
    *(-1 / 87_178_291_200, 1 / 479_001_600, -1 / 3_628_800, 1 / 40_320, -1 / 720, 1 / 24),
    *(-1 / 2, 1.0),
)
_STIRLING_FROM: Final = 12.0
_HALF_LOG_TURN: Final = 0.9189385332046728  # ln(2 pi) / 2


def log(x: float) -> float:
    """The natural logarithm of a positive, finite number."""
    part, power = frexp(x)
    if part < _ROOT_HALF:
        part, power = part + part, power - 1
    at = int(part * _STEPS + 0.5)
    r = part * _BACK[at] - 1.0  # within 1/360; exact where x is near 1
    series = 1 / 3 - r * (1 / 4 - r * (1 / 5 - r * (1 / 6 - r / 7)))
    return power * _LN2_FLOAT + (_LOGS[at] + (r - r * r * (0.5 - r * series)))


def exp(x: float) -> float:
    """e to that power. 0 below -700; `x` is at most 700."""
    assert x <= _EXPONENT_MAX
    if x < -_EXPONENT_MAX:
        return 0.0
    steps = round(x / _SHARE)
    r = (x - steps * _SHARE_HIGH) - steps * _SHARE_LOW  # within 0.0055
    series = r * (1.0 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120 + r / 720)))))
    power, part = divmod(steps, _PARTS)
    return ldexp(_POWERS[part] + _POWERS[part] * series, power)


def power(base: float, exponent: float) -> float:
    """A base that is not negative to that power; of 0, to a positive one. Below e^-700 it is 0."""
    if base == 0.0:
        assert exponent > 0.0
        return 0.0
    return exp(exponent * log(base))


def cosine_of_turn(turns: float) -> float:
    """cos(2 pi turns)."""
    share = turns % 1.0
    share = min(share, 1.0 - share)  # in [0, 1/2]; the cosine is even
    mirrored = share > 0.25
    angle = 2.0 * _PI * (0.5 - share if mirrored else share)
    square, found = angle * angle, 0.0
    for factor in _COSINE:
        found = found * square + factor
    return -found if mirrored else found


def gamma(x: float) -> float:
    """The gamma function of a positive number below 170."""
    below = 1.0
    while x < _STIRLING_FROM:
        below, x = below * x, x + 1.0
    back = 1.0 / (x * x)
    series = (1 / 12 - back * (1 / 360 - back * (1 / 1260 - back * (1 / 1680 - back / 1188)))) / x
    return exp((x - 0.5) * log(x) - x + _HALF_LOG_TURN + series) / below
