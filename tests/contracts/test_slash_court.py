"""Accusations: what happens undisputed, how a jury is drawn and rules, and who pays."""

from collections import Counter
from typing import Any

import pytest

from assay_contracts import calls
from assay_protocol.signing import Identity
from contracts.courtroom import (
    ACCUSED,
    ACCUSER,
    ACQUITTED,
    COURT,
    CULPRIT,
    DISMISSED,
    DISPUTED,
    GUILTY,
    KEY,
    OWNER,
    VOTING,
    accuse,
    courtroom,
    drawn,
    enroll,
    juror,
    state,
    vote,
)
from contracts.evm import DEPLOYER, NOBODY, Refused
from contracts.network_evm import NetworkEvm

REGISTRY = "NodeRegistry"
_ROOM: list[Any] = []


@pytest.fixture
def evm() -> Any:
    if not _ROOM:
        _ROOM.append(courtroom())
    with _ROOM[0].undone():
        yield _ROOM[0]


def bond(evm: NetworkEvm, key: bytes = KEY) -> int:
    held: int = evm.ask(REGISTRY, "bondOf", key)
    return held


def held(evm: NetworkEvm) -> int:
    """What the court has."""
    return evm.balance(evm.at[COURT])


# ---- undisputed ----


def test_an_accusation_nobody_disputes_is_slashed_after_the_window(evm: NetworkEvm) -> None:
    case = accuse(evm)
    assert (state(evm, case), held(evm), evm.balance(ACCUSER)) == (ACCUSED, 1_000, 9_000)
    assert evm.events(COURT)[0][1]["until"] == evm.now + evm.wiring.dispute_window
    evm.pass_time(evm.wiring.dispute_window - 1)
    assert evm.refused(ACCUSER, COURT, "close", case) == "TooEarly"
    evm.pass_time(1)
    assert evm.refused(OWNER, COURT, "dispute", case) == "TooLate"
    evm.send(NOBODY, COURT, "close", case)
    assert evm.events(COURT) == [("Closed", {"id": case, "state": GUILTY, "taken": 60})]
    assert (state(evm, case), bond(evm)) == (GUILTY, 140)
    assert (held(evm), evm.balance(ACCUSER)) == (0, 10_000 + 60 // 4)
    assert evm.refused(NOBODY, COURT, "close", case) == "WrongState"


def test_what_was_tried_is_not_tried_again(evm: NetworkEvm) -> None:
    case = accuse(evm)
    assert evm.refused(ACCUSER, COURT, "accuse", KEY, bytes([1]) * 32, 5) == "AlreadyTried"
    evm.pass_time(evm.wiring.dispute_window)
    evm.send(NOBODY, COURT, "close", case)
    assert evm.refused(ACCUSER, COURT, "accuse", KEY, bytes([1]) * 32, 5) == "AlreadyTried"
    assert accuse(evm, evidence=2) == case + 1


@pytest.mark.parametrize("amount", [0, 81, 2**96 - 1])
def test_an_accusation_asks_for_a_sensible_amount(evm: NetworkEvm, amount: int) -> None:
    assert evm.refused(ACCUSER, COURT, "accuse", KEY, bytes(32), amount) == "BadAmount"


def test_who_has_nothing_is_not_accused(evm: NetworkEvm) -> None:
    assert evm.refused(ACCUSER, COURT, "accuse", bytes(32), bytes(32), 5) == "NothingAtStake"


def test_an_accusation_needs_its_deposit(evm: NetworkEvm) -> None:
    refused = evm.refused(juror(1), COURT, "accuse", KEY, bytes(32), 5)
    assert refused == "ERC20InsufficientBalance"
    assert evm.ask(COURT, "caseCount") == 0


def test_a_bond_that_went_meanwhile_costs_nothing_more(evm: NetworkEvm) -> None:
    cases = [accuse(evm, evidence=n, amount=80) for n in (1, 2, 3)]
    evm.pass_time(evm.wiring.dispute_window)
    taken = []
    for case in cases:
        evm.send(NOBODY, COURT, "close", case)
        taken.append(evm.events(COURT)[0][1]["taken"])
    assert (taken, bond(evm), held(evm)) == ([80, 80, 40], 0, 0)


# ---- disputed ----


def test_only_the_owner_disputes_and_only_once(evm: NetworkEvm) -> None:
    case = accuse(evm)
    assert evm.refused(juror(1), COURT, "dispute", case) == "NotOwner"
    evm.send(OWNER, COURT, "dispute", case)
    draw_block = evm.block + evm.wiring.draw_delay
    expected = {"id": case, "owner": OWNER, "drawBlock": draw_block}
    assert evm.events(COURT) == [("Disputed", expected)]
    assert (state(evm, case), held(evm)) == (DISPUTED, 2_000)
    assert evm.refused(OWNER, COURT, "dispute", case) == "WrongState"
    evm.pass_time(evm.wiring.dispute_window)
    assert evm.refused(ACCUSER, COURT, "close", case) == "WrongState"


@pytest.mark.parametrize("function", ["dispute", "close", "draw", "rule"])
def test_a_case_that_is_not_there(evm: NetworkEvm, function: str) -> None:
    assert evm.refused(OWNER, COURT, function, 99) == "WrongState"
    assert evm.refused(OWNER, COURT, "vote", 99, True) == "WrongState"


def test_the_jury_is_drawn_by_a_later_block(evm: NetworkEvm) -> None:
    case = accuse(evm)
    assert evm.refused(ACCUSER, COURT, "draw", case) == "WrongState"
    evm.send(OWNER, COURT, "dispute", case)
    evm.pass_time(1, blocks=evm.wiring.draw_delay)
    assert evm.refused(ACCUSER, COURT, "draw", case) == "TooEarly"
    evm.pass_time(1, blocks=1)
    evm.send(NOBODY, COURT, "draw", case)
    jurors = [who for who, _ in evm.ask(COURT, "jurorsOf", case)]
    assert len(set(jurors)) == 7
    assert set(jurors) <= {juror(number) for number in range(9)}
    name, event = evm.events(COURT)[0]
    assert (name, list(event["jurors"]), event["until"]) == ("JuryDrawn", jurors, evm.now + 200)
    assert evm.refused(NOBODY, COURT, "draw", case) == "WrongState"


def test_a_draw_that_came_too_late_gets_another_block(evm: NetworkEvm) -> None:
    case = accuse(evm)
    evm.send(OWNER, COURT, "dispute", case)
    evm.pass_time(1, blocks=evm.wiring.draw_delay + 257)
    evm.send(NOBODY, COURT, "draw", case)
    expected = {"id": case, "drawBlock": evm.block + evm.wiring.draw_delay}
    assert evm.events(COURT) == [("DrawMissed", expected)]
    assert state(evm, case) == DISPUTED
    evm.pass_time(1, blocks=evm.wiring.draw_delay + 1)
    evm.send(NOBODY, COURT, "draw", case)
    assert state(evm, case) == VOTING


def test_every_juror_may_be_drawn_and_no_party_is(evm: NetworkEvm) -> None:
    """Parties' other nodes neither: the accuser's and the owner's."""
    enroll(evm, Identity(bytes([90]) * 32), ACCUSER)
    enroll(evm, Identity(bytes([91]) * 32), OWNER)
    enroll(evm, Identity(bytes([92]) * 32), juror(0))  # a second node, no second seat
    case = accuse(evm)
    evm.send(OWNER, COURT, "dispute", case)
    seats: Counter[bytes] = Counter()
    firsts: Counter[bytes] = Counter()
    for _ in range(60):
        with evm.undone():
            evm.pass_time(1, blocks=evm.wiring.draw_delay + 1)
            evm.send(NOBODY, COURT, "draw", case)
            jurors = [who for who, _ in evm.ask(COURT, "jurorsOf", case)]
        assert len(set(jurors)) == len(jurors) == 7
        seats.update(jurors)
        firsts.update(jurors[:1])
        evm.pass_time(0, blocks=1)
        late = evm.wiring.draw_delay + 257  # so that the next draw is by another block
        evm.pass_time(1, blocks=late)
        evm.send(NOBODY, COURT, "draw", case)
    assert set(seats) == {juror(number) for number in range(9)}
    assert min(seats.values()) >= 30  # 60 * 7 / 9 = 47 expected
    assert len(firsts) >= 7


@pytest.mark.parametrize(("jurors", "seated"), [(3, 0), (4, 4), (6, 6)])
def test_a_small_network_has_a_small_jury_or_none(jurors: int, seated: int) -> None:
    evm = courtroom(jurors)
    case, seats = drawn(evm)
    assert len(seats) == seated
    if seated:
        return
    assert (state(evm, case), held(evm), bond(evm)) == (DISMISSED, 0, 200)
    assert evm.balance(ACCUSER) == evm.balance(OWNER) == 10_000


# ---- votes ----


def test_only_jurors_vote_and_once(evm: NetworkEvm) -> None:
    case, jurors = drawn(evm)
    evm.send(jurors[0], COURT, "vote", case, True)
    expected = {"id": case, "juror": jurors[0], "guilty": True}
    assert evm.events(COURT) == [("JurorVoted", expected)]
    assert evm.refused(jurors[0], COURT, "vote", case, False) == "NoSeat"
    for stranger in (ACCUSER, OWNER, NOBODY, *({juror(n) for n in range(9)} - set(jurors))):
        assert evm.refused(stranger, COURT, "vote", case, False) == "NoSeat"
    evm.pass_time(evm.wiring.jury_period)
    assert evm.refused(jurors[1], COURT, "vote", case, False) == "TooLate"


@pytest.mark.parametrize(
    ("guilty", "innocent", "outcome"),
    [
        (0, 0, DISMISSED),
        (3, 0, DISMISSED),
        (2, 2, DISMISSED),
        (3, 3, DISMISSED),
        (4, 0, GUILTY),
        (3, 1, GUILTY),
        (4, 3, GUILTY),
        (7, 0, GUILTY),
        (0, 4, ACQUITTED),
        (1, 3, ACQUITTED),
        (3, 4, ACQUITTED),
        (0, 7, ACQUITTED),
    ],
)
def test_a_majority_of_at_least_four_rules(
    evm: NetworkEvm, guilty: int, innocent: int, outcome: int
) -> None:
    supply = evm.ask("CreditToken", "totalSupply")
    case, jurors = drawn(evm)
    vote(evm, case, jurors, guilty, innocent)
    if guilty + innocent < 7:
        assert evm.refused(NOBODY, COURT, "rule", case) == "TooEarly"
        evm.pass_time(evm.wiring.jury_period)
    evm.send(NOBODY, COURT, "rule", case)
    assert (state(evm, case), held(evm)) == (outcome, 0)
    fee = 0 if outcome == DISMISSED else 500 // (guilty + innocent)
    paid = fee * (guilty + innocent)
    reward = 15 if outcome == GUILTY else 0
    gain = {GUILTY: 1_000 - paid, ACQUITTED: -1_000, DISMISSED: 0}[outcome] + reward
    loss = {GUILTY: -1_000, ACQUITTED: 1_000 - paid, DISMISSED: 0}[outcome]
    assert evm.balance(ACCUSER) == 10_000 + gain
    assert evm.balance(OWNER) == 10_000 + loss
    assert [evm.balance(who) for who in jurors] == [fee] * (guilty + innocent) + [0] * (
        7 - guilty - innocent
    )
    assert bond(evm) == (140 if outcome == GUILTY else 200)
    assert evm.ask("CreditToken", "totalSupply") == supply - (45 if outcome == GUILTY else 0)
    assert evm.refused(NOBODY, COURT, "rule", case) == "WrongState"


def test_a_dismissed_case_may_be_brought_again_and_a_ruled_one_not(evm: NetworkEvm) -> None:
    case, _ = drawn(evm)
    evm.pass_time(evm.wiring.jury_period)
    evm.send(NOBODY, COURT, "rule", case)
    case, jurors = drawn(evm)
    vote(evm, case, jurors, 0, 7)
    evm.send(NOBODY, COURT, "rule", case)
    assert state(evm, case) == ACQUITTED
    assert evm.refused(ACCUSER, COURT, "accuse", KEY, bytes([1]) * 32, 5) == "AlreadyTried"


def test_a_juror_who_left_keeps_the_seat(evm: NetworkEvm) -> None:
    """Or a party could change its jury by what happens to the nodes after the draw."""
    case, jurors = drawn(evm)
    number = next(n for n in range(9) if juror(n) == jurors[0])
    node = Identity(bytes([100 + number]) * 32).public_key
    evm.send(jurors[0], REGISTRY, "beginExit", node)
    evm.send(jurors[0], COURT, "vote", case, True)


def test_the_court_cannot_be_told_nonsense(evm: NetworkEvm) -> None:
    (config,) = evm.plan.arguments()[COURT]
    zeros = ["window", "votePeriod", "drawDelay", "deposit", "penaltyMax", "equivocationPenalty"]
    wrong = [(name, 0) for name in zeros] + [("drawDelay", 256), ("reporterBps", 10_000)]
    for name, value in (*wrong, ("jurorBps", 10_001), ("window", 2_800)):
        with pytest.raises(Refused, match="BadConfig"):
            evm.create(calls.constructor(COURT, config | {name: value}))
    assert evm.create(calls.constructor(COURT, config))


def test_only_the_court_and_the_ledger_slash(evm: NetworkEvm) -> None:
    arguments = (KEY, 1, ACCUSER, 0, bytes(32))
    assert evm.refused(DEPLOYER, REGISTRY, "slash", *arguments) == "NotSlasher"


def test_gas(evm: NetworkEvm) -> None:
    """Printed, not measured for good: storage is warm here."""
    figures = {}
    case = accuse(evm)
    figures["accuse"] = evm.gas_of_last()
    evm.send(OWNER, COURT, "dispute", case)
    figures["dispute"] = evm.gas_of_last()
    evm.pass_time(1, blocks=evm.wiring.draw_delay + 1)
    evm.send(NOBODY, COURT, "draw", case)
    figures["draw"] = evm.gas_of_last()
    jurors = [who for who, _ in evm.ask(COURT, "jurorsOf", case)]
    for who in jurors:
        evm.send(who, COURT, "vote", case, True)
    figures["vote"] = evm.gas_of_last()
    evm.send(NOBODY, COURT, "rule", case)
    figures["rule"] = evm.gas_of_last()
    case = accuse(evm, 2)
    evm.pass_time(evm.wiring.dispute_window)
    evm.send(NOBODY, COURT, "close", case)
    figures["close"] = evm.gas_of_last()
    print(figures)
    assert figures["draw"] < 600_000
    assert CULPRIT.public_key == KEY
