"""The registry's list to draw from is the present nodes, the newest registration last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.policy import Policy
from assay_coordinator.core.registry import Registry
from assay_protocol.messages import Offer, Register

MODELS = [bytes([n]) * 32 for n in (1, 2, 3)]
NODES = [bytes([n]) * 32 for n in range(8)]


def _register(models: list[bytes]) -> Register:
    offers = tuple(
        Offer(
            model=model,
            class_id="scripted/F",
            slots=1,
            context=64,
            prefill_rate=1,
            decode_rate=1,
        )
        for model in models
    )
    return Register(operator=bytes(32), offers=offers, addresses=(), software="", device="")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(NODES),
            st.booleans(),
            st.lists(st.sampled_from(MODELS), min_size=1, unique=True),
        ),
        max_size=40,
    )
)
def test_the_list_is_of_those_who_serve_by_registration(
    steps: list[tuple[bytes, bool, list[bytes]]],
) -> None:
    registry = Registry(Policy())
    present: dict[bytes, list[bytes]] = {}  # by node, the newest last
    for now, (key, comes, models) in enumerate(steps):
        present.pop(key, None)
        if comes:
            registry.register(now, key, _register(models), now + 1)
            present[key] = models
        elif (node := registry.get(key)) is not None:
            registry.leave(node)
        for model in MODELS:
            wanted = [one for one, offered in present.items() if model in offered]
            assert [node.key for node in registry.listed(model)] == wanted
            assert list(registry.serving(model)) == wanted
