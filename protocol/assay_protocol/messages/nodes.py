"""A node joins, renews its lease and learns its standing: node <-> coordinator."""

from __future__ import annotations

from typing import Annotated

from assay_protocol import limits
from assay_protocol.codec import Size, message, struct
from assay_protocol.messages.parts import (
    Address,
    Count,
    Credit,
    Digest,
    Key,
    Name,
    Offer,
    Text,
    Time,
)


@message(50)
class Register:
    """Join, or renew. The key is the connection's own; all offers share the node's slots."""

    operator: Key
    offers: Annotated[tuple[Offer, ...], Size(1, limits.MODELS_PER_NODE_MAX)]
    addresses: Annotated[tuple[Address, ...], Size(1, limits.ADDRESSES_PER_NODE_MAX)]
    software: Name
    device: Name
    region: Name | None = None  # where its owner says it is (regions.py)


@message(52)
class Registered:
    """The lease: heartbeats keep it alive."""

    heartbeat_ms: Count
    lease_ms: Count
    state: Name
    now_at: Time
    rules: Digest | None = None  # as in HeartbeatAck


@struct
class ModelLoad:
    """One of several models of a node."""

    model: Digest
    jobs: Count  # running and waiting
    wait_ms: Count  # until it should be loaded; 0 if it is


@message(54)
class Heartbeat:
    """The node's load now. Sent every `heartbeat_ms` and on any change of `draining`."""

    running: Count
    waiting: Count
    free_slots: Count
    draining: bool
    models: Annotated[tuple[ModelLoad, ...], Size(0, limits.MODELS_PER_NODE_MAX)] | None = None


@message(56)
class HeartbeatAck:
    """The lease is renewed; the node's standing."""

    state: Name
    audits_passed: Count
    audits_failed: Count
    earned: Credit
    escrow: Credit
    drawn: Count | None = None  # its jobs under audit: a node that leaves now cannot show them
    rules: Digest | None = None  # sha256 of the NetworkRules in force; other than known: fetch them
    block: Count | None = None  # the newest of the chain, to execute and vote on


@message(104)
class CheckReach:
    """Ask to be dialed: before a node registers, on the link REACH."""

    addresses: Annotated[tuple[Address, ...], Size(0, limits.ADDRESSES_PER_NODE_MAX)]


@message(106)
class Reach:
    """Where the asker was reached. `results` are in the order of the addresses asked for.

    Each is empty, or an error's code: "forbidden" is an address that is not the asker's own, which
    was not tried. `seen` is the IP address the question came from, empty if it is not known.
    """

    now_at: Time
    seen: Text
    results: Annotated[tuple[Text, ...], Size(0, limits.ADDRESSES_PER_NODE_MAX)]
