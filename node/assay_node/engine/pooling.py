"""From the rows of a text's tokens to its one vector. Pure.

Done here and not in llama.cpp, whose mean is a product over all rows of a batch: there the order of
the sum, and a NaN of one text, reach the others. Sums are in double precision, in the order of the
tokens, and the length is rounded once (math.fsum): the same rows give the same bits everywhere.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from assay_node.engine.embedding import Pooling
from assay_protocol.errors import AssayError


def pooled(rows: NDArray[np.float32], pooling: Pooling) -> bytes:
    """float32[tokens, dims] to little-endian f32[dims] of length 1.

    Raises AssayError("not_finite") for a row that counts and is not finite, and for a sum of zero.
    """
    wide = rows.astype(np.float64)
    match pooling:
        case "mean":
            vector = wide[0]
            for row in wide[1:]:
                vector = vector + row
        case "cls":
            vector = wide[0]
        case "last":
            vector = wide[-1]
    if not np.isfinite(vector).all():
        raise AssayError("not_finite")
    length = math.sqrt(math.fsum(vector * vector))
    if length == 0:
        raise AssayError("not_finite")
    data: bytes = (vector / length).astype("<f4").tobytes()
    return data
