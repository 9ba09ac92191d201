"""Whatever accusers, owners, jurors and passers-by do, tokens are conserved and each case ends as
its votes say. Money is followed in Python beside the contract."""

import os
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from assay_protocol.signing import Identity
from contracts.courtroom import (
    ACCUSED,
    ACQUITTED,
    COURT,
    DISMISSED,
    DISPUTED,
    GUILTY,
    VOTING,
    enroll,
    receipts,
    two,
)
from contracts.evm import NOBODY, Refused
from contracts.network_evm import NetworkEvm

IDENTITIES = [Identity(bytes([150 + n]) * 32) for n in range(7)]
OWNERS = [bytes([0xD0 + n]) * 20 for n in range(6)]  # the last has two nodes
ACCUSERS = [*OWNERS[:2], bytes([0xAA]) * 20]
START = 50_000
EXAMPLES = int(os.environ.get("ASSAY_COURT_EXAMPLES", "25"))
_SAID = st.sampled_from([True, False, None, True, False])
BALLOTS: st.SearchStrategy[list[bool | None]] = (
    st.just([])
    | st.lists(_SAID, min_size=5, max_size=5)
    | st.permutations([True] * 3 + [False] * 2)
)
_ROOM: list[NetworkEvm] = []


def room() -> NetworkEvm:
    if not _ROOM:
        evm = NetworkEvm()
        for identity, owner in zip(IDENTITIES, [*OWNERS, OWNERS[-1]], strict=True):
            enroll(evm, identity, owner)
        for who in {*OWNERS, *ACCUSERS}:
            evm.give(who, START, COURT)
        _ROOM.append(evm)
    return _ROOM[0]


@dataclass
class Trial:
    """What the machine knows of one case."""

    key: bytes
    owner: bytes
    accuser: bytes
    evidence: int
    amount: int
    until: int
    state: int = ACCUSED
    draw_block: int = 0
    jurors: list[bytes] = field(default_factory=list)
    votes: dict[bytes, bool] = field(default_factory=dict)


class Court(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.evm = room()
        self._undone = self.evm.undone()
        self._undone.__enter__()
        self.trials: dict[int, Trial] = {}
        self.money = dict.fromkeys({*OWNERS, *ACCUSERS}, START)
        self.bonds = {one.public_key: 200 for one in IDENTITIES}
        self.burned = 0
        self.supply = self.evm.ask("CreditToken", "totalSupply")
        self.punished: set[tuple[bytes, int]] = set()
        self.barred: set[tuple[bytes, int]] = set()

    def teardown(self) -> None:
        self._undone.__exit__(None, None, None)

    @initialize()
    def begin(self) -> None:
        assert self.evm.balance(self.evm.at[COURT]) == 0

    # ---- what people do ----

    @rule(node=st.integers(0, 6), accuser=st.sampled_from(ACCUSERS), evidence=st.integers(0, 3),
          amount=st.sampled_from([0, 1, 60, 80, 81]))  # fmt: skip
    def accuse(self, node: int, accuser: bytes, evidence: int, amount: int) -> None:
        key = IDENTITIES[node].public_key
        sound = 0 < amount <= 80 and self.bonds[key] and (key, evidence) not in self.barred
        arguments = (key, bytes([evidence]) * 32, amount)
        if not self._tried(bool(sound), accuser, "accuse", *arguments):
            return
        until = self.evm.now + self.evm.wiring.dispute_window
        owner = OWNERS[min(node, 5)]
        case = len(self.trials) + 1
        self.trials[case] = Trial(key, owner, accuser, evidence, amount, until)
        self.barred.add((key, evidence))
        self.money[accuser] -= 1_000

    @rule(pick=st.integers(0, 99), by_owner=st.booleans())
    def dispute(self, pick: int, by_owner: bool) -> None:
        case, trial = self._any(pick)
        sound = trial.state == ACCUSED and self.evm.now < trial.until and by_owner
        caller = trial.owner if by_owner else bytes([0xEE]) * 20
        if self._tried(sound, caller, "dispute", case):
            trial.state = DISPUTED
            trial.draw_block = self.evm.block + self.evm.wiring.draw_delay
            self.money[trial.owner] -= 1_000

    @rule(pick=st.integers(0, 99))
    def close(self, pick: int) -> None:
        case, trial = self._any(pick)
        sound = trial.state == ACCUSED and self.evm.now >= trial.until
        if self._tried(sound, NOBODY, "close", case):
            trial.state = GUILTY
            self.money[trial.accuser] += 1_000
            self._slashed(trial.key, trial.amount, trial.accuser)

    @rule(pick=st.integers(0, 99))
    def draw(self, pick: int) -> None:
        case, trial = self._any(pick)
        sound = trial.state == DISPUTED and self.evm.block > trial.draw_block
        if not self._tried(sound, NOBODY, "draw", case):
            return
        if self.evm.block - trial.draw_block > 256:
            trial.draw_block = self.evm.block + self.evm.wiring.draw_delay
            return
        trial.jurors = [who for who, _ in self.evm.ask(COURT, "jurorsOf", case)]
        active = self.evm.ask("NodeRegistry", "activeCount")
        keys = [self.evm.ask("NodeRegistry", "activeAt", n) for n in range(active)]
        owners = {self.evm.ask("NodeRegistry", "ownerOf", key) for key in keys}
        eligible = owners - {trial.owner, trial.accuser}
        if len(eligible) < 4:
            assert not trial.jurors
            self._dismissed(trial)
            return
        assert set(trial.jurors) == eligible  # fewer than seven owners: all of them
        assert len(trial.jurors) == len(eligible)
        trial.state = VOTING
        trial.until = self.evm.now + self.evm.wiring.jury_period

    @rule(pick=st.integers(0, 99), who=st.sampled_from(OWNERS), guilty=st.booleans())
    def vote(self, pick: int, who: bytes, guilty: bool) -> None:
        case, trial = self._any(pick)
        sound = trial.state == VOTING and self.evm.now < trial.until
        sound = sound and who in trial.jurors and who not in trial.votes
        if self._tried(sound, who, "vote", case, guilty):
            trial.votes[who] = guilty

    @rule(node=st.integers(0, 6), accuser=st.sampled_from(ACCUSERS), evidence=st.integers(0, 3),
          blocks=st.sampled_from([4, 4, 4, 300]), ballots=BALLOTS)  # fmt: skip
    def go_to_trial(
        self, node: int, accuser: bytes, evidence: int, blocks: int, ballots: list[bool | None]
    ) -> None:
        """What chance alone seldom does: accused, disputed, drawn, and perhaps ruled."""
        case = len(self.trials) + 1
        self.accuse(node, accuser, evidence, 60)
        if len(self.trials) < case:
            return
        self.dispute(case - 1, by_owner=True)
        self.pass_time(1, blocks)
        self.draw(case - 1)
        for who, guilty in zip(list(self.trials[case].jurors), ballots, strict=False):
            if guilty is not None:
                self.vote(case - 1, who, guilty)
        if ballots:
            self.pass_time(self.evm.wiring.jury_period, 0)
            self.end(case - 1)

    @rule(pick=st.integers(0, 99))
    def end(self, pick: int) -> None:
        case, trial = self._any(pick)
        over = self.evm.now >= trial.until or len(trial.votes) == len(trial.jurors)
        if not self._tried(trial.state == VOTING and over, NOBODY, "rule", case):
            return
        guilty = sum(trial.votes.values())
        innocent = len(trial.votes) - guilty
        if guilty + innocent < 4 or guilty == innocent:
            self._dismissed(trial)
            return
        fee = 500 // len(trial.votes)
        for who in trial.votes:
            self.money[who] += fee
        winner = trial.accuser if guilty > innocent else trial.owner
        self.money[winner] += 2_000 - fee * len(trial.votes)
        trial.state = GUILTY if guilty > innocent else ACQUITTED
        if trial.state == GUILTY:
            self._slashed(trial.key, trial.amount, trial.accuser)

    @rule(node=st.integers(0, 6), job=st.integers(0, 1), reporter=st.sampled_from(ACCUSERS))
    def equivocate(self, node: int, job: int, reporter: bytes) -> None:
        identity = IDENTITIES[node]
        pair = receipts(n_out=5) if job else receipts(ticket=bytes(16), n_out=5)
        arguments = two(*pair, key=identity, other=identity)
        sound = job == 1 and (identity.public_key, job) not in self.punished
        if self._tried(sound, reporter, "equivocation", *arguments):
            if self.bonds[identity.public_key]:
                self.punished.add((identity.public_key, job))
            self._slashed(identity.public_key, 150, reporter)

    @rule(seconds=st.sampled_from([1, 100, 200, 400]), blocks=st.sampled_from([0, 1, 4, 4, 300]))
    def pass_time(self, seconds: int, blocks: int) -> None:
        self.evm.pass_time(seconds, blocks)

    # ---- what must hold ----

    @invariant()
    def money_is_where_it_should_be(self) -> None:
        for who, amount in self.money.items():
            assert self.evm.balance(who) == amount
        stakes = {ACCUSED: 1_000, DISPUTED: 2_000, VOTING: 2_000}
        held = sum(stakes.get(trial.state, 0) for trial in self.trials.values())
        assert self.evm.balance(self.evm.at[COURT]) == held
        assert self.evm.balance(self.evm.at["NodeRegistry"]) == sum(self.bonds.values())
        assert self.evm.ask("CreditToken", "totalSupply") == self.supply - self.burned

    @invariant()
    def cases_stand_as_they_should(self) -> None:
        for case, trial in self.trials.items():
            assert self.evm.ask(COURT, "cases", case)[7] == trial.state
        for key, bond in self.bonds.items():
            assert self.evm.ask("NodeRegistry", "bondOf", key) == bond

    # ---- the model ----

    def _any(self, pick: int) -> tuple[int, Trial]:
        """One of the cases; where there is none yet, a case that does not exist."""
        if not self.trials:
            return 1, Trial(b"", NOBODY, NOBODY, 0, 0, 0, state=0)
        case = pick % len(self.trials) + 1
        return case, self.trials[case]

    def _tried(self, sound: bool, caller: bytes, function: str, *arguments: object) -> bool:
        """Sends it; it must be done exactly if it is sound."""
        try:
            self.evm.send(caller, COURT, function, *arguments)
        except Refused:
            assert not sound, (function, arguments)
            return False
        assert sound, (function, arguments)
        return True

    def _slashed(self, key: bytes, amount: int, reporter: bytes) -> None:
        taken = min(amount, self.bonds[key])
        self.bonds[key] -= taken
        self.money[reporter] += taken // 4
        self.burned += taken - taken // 4

    def _dismissed(self, trial: Trial) -> None:
        trial.state = DISMISSED
        self.barred.discard((trial.key, trial.evidence))
        self.money[trial.accuser] += 1_000
        self.money[trial.owner] += 1_000


Court.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_the_court = Court.TestCase
