"""An audit the coordinator has ended takes no place any more."""

from __future__ import annotations

from assay_node.core import events as on
from assay_protocol.codec import encode
from assay_protocol.messages import AuditAccept, AuditDecline, AuditTask
from node.core.audit_bench import task
from node.core.node_bench import Bench, make_bench


def _asked(bench: Bench, audit: AuditTask) -> object:
    [answer] = bench.notices(bench.post(on.Noticed(encode(audit))))
    return answer


def test_a_cancelled_audit_makes_room_for_another() -> None:
    bench = make_bench()  # takes on two audits at once
    first, second, third = (task(audit=bytes([n]) * 16) for n in (1, 2, 3))
    assert isinstance(_asked(bench, first), AuditAccept)
    assert isinstance(_asked(bench, second), AuditAccept)
    busy = _asked(bench, third)
    assert isinstance(busy, AuditDecline)
    assert busy.code == "busy"
    over = AuditDecline(audit=first.audit, code="cancelled")
    assert bench.notices(bench.post(on.Noticed(encode(over)))) == []
    assert isinstance(_asked(bench, third), AuditAccept)


def test_cancelling_what_is_not_known_does_nothing() -> None:
    bench = make_bench()
    over = AuditDecline(audit=bytes(16), code="cancelled")
    assert bench.notices(bench.post(on.Noticed(encode(over)))) == []
