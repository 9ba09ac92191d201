"""Nodes and a coordinator as `assay top` reads them, and places that answer as they are told."""

from __future__ import annotations

import json
from typing import Any

from assay.top.core.network_view import NetworkLook
from assay.top.core.node_view import Look

KEY, OTHER = "ab" * 32, "cd" * 32
SECOND = 1_000_000
WALL = 1_790_000_000 * SECOND


def status(**changes: Any) -> dict[str, Any]:
    """What a node that is well writes."""
    told: dict[str, Any] = {
        "at": WALL - SECOND,
        "pid": 7,
        "node": KEY,
        "device": "cpu",
        "model": "ee" * 32,
        "name": "smollm2",
        "class_id": "exact/1",
        "phase": "serving",
        "paused": "",
        "state": "active",
        "running": 3,
        "slots": 4,
        "queued": 1,
        "jobs_done": 10,
        "jobs_failed": 1,
        "jobs_refused": 0,
        "tokens": 100,
        "audits_passed": 7,
        "audits_failed": 0,
        "earned": 18_204,
        "escrow": 4_410,
        "receipts_owed": 2,
        "metrics": "",
        "limits": {"hours": ["22:00-07:00"], "max_celsius": 80},
        "machine": {
            "cpu_percent": 73.2,
            "memory_used": 5 << 30,
            "memory": 16 << 30,
            "gpus": [
                {
                    "name": "NVIDIA L4",
                    "memory_used": 3 << 30,
                    "memory": 24 << 30,
                    "busy_percent": 88,
                    "celsius": 71,
                    "watts": None,
                }
            ],
        },
        "last_error": "timeout",
        "last_error_at": WALL - 60 * SECOND,
    }
    return told | changes


def metrics(tokens: int, prompt: int = 0, firsts: tuple[int, int] = (0, 0)) -> str:
    """`firsts`: first tokens within 0.1 s, and within 0.5 s beyond that."""
    fast, slow = firsts
    return (
        f"assay_generation_tokens_total {tokens}.0\nassay_prompt_tokens_total {prompt}.0\n"
        f'assay_jobs_total{{outcome="done"}} {fast + slow}.0\n'
        f'assay_time_to_first_token_seconds_bucket{{le="0.1"}} {fast}.0\n'
        f'assay_time_to_first_token_seconds_bucket{{le="0.5"}} {fast + slow}.0\n'
        f'assay_time_to_first_token_seconds_bucket{{le="+Inf"}} {fast + slow}.0\n'
        'assay_node_phase{phase="serving"} 1.0\n'
    )


def look(at: int, tokens: int, **more: Any) -> Look:
    """A look at a node's pages at second `at`."""
    return Look(at * SECOND, status(), metrics(tokens, **more))


def network(jobs: int = 40) -> dict[str, Any]:
    """What `/api/network` gives, as far as it is read."""
    return {
        "faults": [],
        "nodes": {"registered": 3, "present": 2, "active": 1, "probation": 1, "convicted": 1},
        "slots": 8,
        "free_slots": 5,
        "running": 3,
        "waiting": 1,
        "jobs": jobs,
        "audits": 12,
        "audits_open": 2,
        "epoch": {"running": 4},
        "rates": {"tokens_per_second": 80.5, "first_token_us": 120_000},
        "activity": {"against": [0, 1, 0]},
    }


def nodes() -> dict[str, Any]:
    """What `/api/nodes` gives: the node of `status`, and another under inquiry."""
    shape = {
        "state": "active",
        "standing": "active",
        "draining": False,
        "device": "cpu",
        "models": [{"id": "ee" * 32, "name": "smollm2"}],
        "jobs": 9,
        "running": 0,
        "waiting": 0,
        "slots": 4,
        "earned": "90000000000000000000",
        "escrow": "12",
        "audits_passed": 3,
        "audits_failed": 1,
        "evidence_nats": 1.5,
        "alarm_nats": 9.0,
    }
    one = shape | {"node": KEY}
    return {"items": [one, shape | {"node": OTHER, "state": "inquiry", "standing": "inquiry"}]}


def verdicts() -> dict[str, Any]:
    """What `/api/verdicts` gives."""
    one = {"node": OTHER, "outcome": "failed", "at": WALL, "ticket": "99" * 16, "model": {}}
    return {"items": [one], "next": None}


def network_look(at: int, jobs: int = 40) -> NetworkLook:
    """A look at a coordinator at second `at`."""
    return NetworkLook(at * SECOND, network(jobs), nodes(), verdicts())


def pages(**changes: bytes) -> dict[str, bytes]:
    """Bodies by path of a node and a coordinator at one door."""
    return {
        "/metrics": metrics(100).encode(),
        "/readyz": b'{"ready": false, "reasons": ["busy"]}',
        "/status": json.dumps(status()).encode(),
        "/api/network": json.dumps(network()).encode(),
        "/api/nodes": json.dumps(nodes()).encode(),
        "/api/verdicts": json.dumps(verdicts()).encode(),
    } | {f"/{name}": body for name, body in changes.items()}
