"""Kinds of faults, and what each does; a scenario's [[fault]] says when, for how long, to whom."""

from __future__ import annotations

from typing import Final

FAULTS: Final = {
    "coordinator_crash": "the coordinator's process dies, and is back after `for`",
    "commit_crash": "it dies within its next commit: all rows of that are there, or none",
    "node_crash": "nodes' processes die, and are back after `for`",
    "torn_disk": "nodes lose power within their next commit: it is there or not",
    "freeze": "nodes stand still, and get everything later",
    "clock_drift": "nodes' clocks run faster or slower by `ppm`, from then on",
    "clock_jump": "nodes' clocks jump ahead or back by `by`",
    "partition": "`regions` and the rest reach each other no more; `one_way`: are not heard",
    "loss": "a share of messages never comes",
    "duplicate": "a share of messages comes twice",
    "reorder": "a share of messages is overtaken",
    "delay": "every message takes `by` longer",
    "clog": "nodes' lines let nothing through, one after another, and clear in another order",
    "chain_outage": "the chain cannot be asked or sent anything",
    "chain_reorg": "the newest `depth` blocks become others; of what was in them the pool forgets "
    "`fraction`",
    "engine_crash": "nodes' engines die and start again; what they were at is lost",
    "bit_flip": "one answer of each node is computed wrong",
    "slow_disk": "a commit of nodes takes `by`",
    "disk_full": "nodes can save nothing",
}
