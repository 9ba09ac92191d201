"""Where a node says it is: words from the large to the small, such as `eu`, `eu-de`, `eu-de-fra`.

The owner's word and nobody's proof: an address can be anywhere, and distances measured by peers
can be made longer, not shorter. A job asks for regions, and goes to nodes that say they are there,
or in a part of it. Which words there are is for those who use them to agree on; the first two are
best a continent and an ISO 3166 country.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from assay_protocol.errors import AssayError

REGIONS_MAX: Final = 8  # that one job may name
_REGION: Final = re.compile(r"[a-z0-9]{1,12}(-[a-z0-9]{1,12}){0,3}")


def is_region(text: str) -> bool:
    """Whether `text` names a region: one to four words of a-z and 0-9 with hyphens between."""
    return _REGION.fullmatch(text) is not None


def check_regions(regions: Iterable[str]) -> None:
    """Raise AssayError("malformed") unless each names a region."""
    if not all(map(is_region, regions)):
        raise AssayError("malformed", "a region is words of a-z and 0-9 with hyphens between")


def lies_in(region: str | None, wanted: Iterable[str]) -> bool:
    """Whether `region` is one of `wanted` or a part of one; who tells none is nowhere."""
    return region is not None and any(f"{region}-".startswith(f"{one}-") for one in wanted)
