"""What is told of a request, from attempts that are made by hand: nothing is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from assay.gateway.admission import ANYBODY
from assay.gateway.attempts import Attempt, Wanted
from assay.gateway.decisions import Course, Tried
from assay.gateway.generation import Asked, Generation
from assay.gateway.refusal import Refusal
from assay.gateway.upstream import Passage
from assay.gateway.upstream_answers import UpstreamAnswer
from assay.routing.core.events import Start
from assay.routing.core.plans import Target


class Drawn:
    """A generation, as far as an attempt reads one."""

    def __init__(self, cost: int, tokens: int) -> None:
        self.cost, self.prompt_tokens, self.completion_tokens = cost, 3, tokens

    def receipt_ids(self) -> list[str]:
        return [f"receipt-{self.cost}"]


def drawn(number: int, model: str, cost: int = 0, why: str = "first") -> Attempt:
    made = cast(Generation, Drawn(cost, 5)) if cost else None
    return Attempt(Start(number, Target(model), why), at=number * 2_000, generation=made)


def course(*attempts: Attempt, **more: Any) -> Course:
    wanted = Wanted(Asked("asked", 8), ANYBODY, Passage("/v1/completions", {}, 8), False, "req_1")
    known: dict[str, Any] = {
        "wanted": wanted, "attempts": attempts, "answering": None, "case": "", "barred": "",
        "refusal": None, "over": True, "began": 0, "first_at": None, "now": 9_000,
    }  # fmt: skip
    return Course(**(known | more))


def test_a_hedges_costs_are_told_beside_the_answers_and_in_the_sum() -> None:
    lost, won = drawn(0, "m", 7), drawn(1, "m", 11, "hedge")
    lost.give_up()
    went = course(lost, won, answering=1, first_at=4_500)
    assert went.facts() == {
        "by": "network", "upstream": None, "model": "m", "case": None, "attempts": 2,
        "also": {"credit": 7, "receipts": ["receipt-7"]},
    }  # fmt: skip
    told = went.decision(3, ())
    assert (told.credit, told.code, told.first_token_ms, told.whole_ms) == (18, "", 4, 9)
    assert told.tried == (
        Tried("m", "", "first", "cancelled", 0),
        Tried("m", "", "hedge", "", 2),
    )
    assert (told.tokens_in, told.tokens_out) == (3, 5)


def test_an_upstreams_counts_and_price_are_those_told() -> None:
    failed = drawn(0, "m")
    failed.refusal = Refusal(503, "no_capacity", "none")
    passed = Attempt(Start(1, Target("far-1", "afar"), "fallback"), at=5_000)
    passed.upstream = UpstreamAnswer(begun=True, tokens_in=70, tokens_out=9, price=33)
    went = course(failed, passed, answering=1, case="no_node")
    assert went.facts()["upstream"] == "afar"
    assert (went.facts()["case"], passed.told_by()) == ("no_node", "upstream afar")
    told = went.decision(3, ())
    assert (told.upstream, told.tokens_in, told.tokens_out, told.price) == ("afar", 70, 9, 33)
    assert (told.model, told.tried[0].model) == ("far-1", ""), "nobody had the first"


def test_a_name_is_told_if_the_owner_wrote_it_or_somebody_had_it() -> None:
    went = course(drawn(0, "asked"))
    assert (went.decision(0, ()).asked, went.decision(0, ()).model) == ("", "")
    assert went.decision(0, {"asked"}).asked == "asked"
    assert course(drawn(0, "asked", 4)).decision(0, ()).model == "asked"


def test_how_a_request_ended() -> None:
    answer, refusal = drawn(0, "m", 4), Refusal(502, "upstream_broken", "it broke", charged=True)
    assert course(answer, answering=0).decision(0, ()).code == ""
    assert course(answer, answering=0, over=False).decision(0, ()).code == "cancelled"
    answer.refusal = refusal
    assert course(answer, answering=0, refusal=refusal).decision(0, ()).code == "upstream_broken"
    nobody = replace(course(), barred="key_not_admitted").decision(0, ())
    assert (nobody.code, nobody.model, nobody.tried) == ("cancelled", "", ())
    assert nobody.barred == "key_not_admitted"
