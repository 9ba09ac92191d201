"""What a node tells the coordinator of its models: an offer each, and how busy they are. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from assay_node.core.parameters import Served
from assay_protocol.messages import Heartbeat, ModelLoad, Offer


def make_offer(served: Served) -> Offer:
    """One model, as it is served here."""
    return Offer(
        model=served.model,
        class_id=served.class_id,
        slots=served.slots,
        context=served.context,
        prefill_rate=served.prefill_rate,
        decode_rate=served.decode_rate,
        grammar=served.grammar or None,
        dims=served.dims or None,
        prompt_logprobs=served.tells_prompts or None,
    )


def make_heartbeat(
    jobs: Mapping[bytes, int], waits_us: Mapping[bytes, int], slots: int, draining: bool
) -> Heartbeat:
    """`jobs` and microseconds until it is loaded, by model; `slots` are shared by all of them."""
    running = sum(jobs.values())
    loads = None
    if len(waits_us) > 1:
        loads = tuple(
            ModelLoad(model=model, jobs=jobs.get(model, 0), wait_ms=-(-wait_us // 1000))
            for model, wait_us in waits_us.items()
        )
    return Heartbeat(
        running=min(running, slots),
        waiting=max(0, running - slots),
        free_slots=0 if draining else max(0, slots - running),
        draining=draining,
        models=loads,
    )
