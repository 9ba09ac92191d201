"""All adversaries of the suite and what each run of it shows: `python -m assay_simnet.adversaries`.

Prints docs/adversaries.md. Each line is one adversary tried in a network of production cores under
fixed seeds, so the page changes only when the code's behaviour does; tests/adversaries holds every
line to what it promises.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from assay_protocol.messages import TokenBias
from assay_simnet.audit_trials import try_auditor
from assay_simnet.behaviours import answers, auditors, draws, prompts, weights, words
from assay_simnet.behaviours.behaviour import Behaviour
from assay_simnet.behaviours.honest import Honest
from assay_simnet.bias_trials import try_bias
from assay_simnet.group_trials import (
    try_honest,
    try_swarm,
    try_wash_padder,
    try_wash_trader,
    try_whitewasher,
)
from assay_simnet.language import END
from assay_simnet.setting import POLICY, SECOND
from assay_simnet.trials import Result, Trial, try_executor
from assay_simnet.workload import NEAR_TIES, SAMPLER, Workload

ESTABLISHED: Final = 400  # audits passed: the lowest audit rate is reached
LONG: Final = Workload(max_tokens=64)
ENDING: Final = Workload(
    max_tokens=64, sampler=replace(SAMPLER, logit_bias=(TokenBias(token=END, bias=1.5),))
)
SHORT: Final = Workload(max_tokens=16, own_tokens=8, system=())
TINY: Final = Workload(max_tokens=1, own_tokens=1, system=(), pace_us=10 * SECOND)
SLOW: Final = Workload(pace_us=10 * SECOND)  # draws are made minutes after receipts
TIES: Final = Workload(sampler=NEAR_TIES)


@dataclass(frozen=True)
class Adversary:
    """One line of the page. `catches`: what is to see it; `verified`: audits passed before."""

    name: str
    does: str
    catches: str
    verified: int
    run: Callable[[], Result]

    def line(self, result: Result) -> str:
        """Its row of the table."""
        runs, jobs = len(result.runs), f"{result.jobs:g}"
        return (
            f"| `{self.name}` | {self.does} | {self.catches} | {self.verified} "
            f"| {result.stopped} of {runs} | {jobs} | {result.profit:+.1f} | {result.states} |"
        )


def _executor(behaviour: type[Behaviour], catches: str, **changes: object) -> Adversary:
    trial = Trial(behaviour, **changes)  # type: ignore[arg-type]  # fields of Trial
    run = partial(try_executor, trial)
    return Adversary(behaviour.name, behaviour.does, catches, trial.verified, run)


def _auditor(behaviour: type[Behaviour], catches: str) -> Adversary:
    trial = Trial(behaviour, auditors=3, jobs_max=24)
    run = partial(try_auditor, trial)
    return Adversary(behaviour.name, behaviour.does, catches, 0, run)


def _group(name: str, does: str, catches: str, run: Callable[[], Result]) -> Adversary:
    return Adversary(name, does, catches, 0, run)


def _cartel_friends(own: Behaviour) -> list[Behaviour]:
    """One auditor in three is of the cartel."""
    assert isinstance(own, auditors.Cartel)
    return [auditors.Cartel(tickets=own.tickets, serves=False) for _ in range(2)]


_LISTED: Final = (
    _executor(weights.QuantDown, "sketches, draws"),
    _executor(weights.KvQ8, "sketches, over many audits; exact classes at once", jobs_max=80),
    _executor(weights.KvQ4, "sketches, draws"),
    _executor(weights.LayerSkip, "sketches, draws"),
    _executor(weights.SmallModel, "draws, sketches"),
    _executor(weights.WrongFinetune, "sketches"),
    _executor(weights.PrefillForger, "draws"),
    _executor(draws.LossySpec, "draws, over several audits"),
    _executor(draws.SeedSwap, "draws"),
    _executor(draws.TempShift, "draws, over many audits", jobs_max=80),
    _executor(draws.TopkGreedy, "draws"),
    _executor(prompts.SysPromptDrop, "sketches"),
    _executor(prompts.PersonaEdit, "sketches"),
    _executor(prompts.CtxTruncate, "sketches, draws"),
    _executor(answers.TokenEdit, "draws: a margin no noise explains"),
    _executor(answers.EarlyStop, "draws: the end is a token, over several audits"),
    _executor(answers.Padder, "draws", workload=ENDING),
    _executor(
        weights.PartialCheat,
        "lottery, sketches",
        verified=ESTABLISHED,
        jobs_max=250,
        workload=SLOW,
        seeds=tuple(range(1, 9)),
    ),
    _executor(weights.TailCheat, "sketches of the span", workload=LONG),
    _executor(weights.MidSwitch, "sketches of the span", workload=LONG),
    _executor(
        weights.Sleeper, "lottery, escrow", verified=ESTABLISHED, jobs_max=220, workload=SLOW
    ),
    _executor(answers.Replayer, "draws: the seed is the job's"),
    _executor(answers.Copycat, "draws: the seed is the job's"),
    _executor(words.Equivocator, "its two signatures"),
    _executor(
        words.Withholder,
        "the deadline: not paid, and audited more",
        verified=ESTABLISHED,
        jobs_max=90,
        workload=SLOW,
    ),
    _executor(words.NoCommit, "no receipt in time, no pay", jobs_max=12),
    _executor(weights.ClassLiar, "the default table judges unknown classes", class_id="odd/F"),
    _executor(weights.NoiseRider, "sketches, over many audits", jobs_max=80),
    _executor(weights.PromptMiner, "sketches; near-ties are no evidence", workload=TIES),
    _executor(answers.ProbeSpotter, "probes look like other jobs"),
    _auditor(auditors.LazyAuditor, "the executor's leaves"),
    _auditor(words.CopyAuditor, "no commitment in time"),
    _auditor(auditors.CheapAuditor, "the executor's leaves"),
    _auditor(auditors.GriefingAuditor, "two other auditors"),
    _executor(
        auditors.Cartel, "other auditors, audits of audits", friends=_cartel_friends, jobs_max=60
    ),
    _group(
        "whitewasher",
        "cheats, is banned, comes back under a new key",
        "a new key earns nothing before its audits",
        partial(try_whitewasher, Trial(weights.QuantDown, jobs_max=30)),
    ),
    _group(
        "sybil_swarm",
        "cheats with eight keys of eight operators",
        "every key is audited from its first job",
        partial(try_swarm, Trial(weights.QuantDown, jobs_max=60), 8),
    ),
    _group(
        "wash_trader",
        "pays its own node for real work",
        "nobody: the fee makes it a loss",
        partial(try_wash_trader, Trial(Honest, jobs_max=40), SHORT),
    ),
    Adversary(
        weights.WashPadder.name,
        weights.WashPadder.does,
        "lottery: the less it has at stake, the more is drawn",
        ESTABLISHED,
        partial(
            try_wash_padder,
            Trial(
                weights.WashPadder,
                verified=ESTABLISHED,
                jobs_max=8,
                policy=replace(POLICY, holdback_jobs=12),
                seeds=tuple(range(1, 9)),
            ),
            TINY,
            12,
        ),
    ),
    _group(
        "coordinator_bias",
        "a coordinator never audits a friend's node",
        "anybody who rechecks the public draw",
        try_bias,
    ),
    _executor(prompts.PrefixPoison, "sketches, draws"),
    _executor(answers.ProxyNode, "draws: an API draws by no seed of ours"),
    _executor(weights.FingerprintForger, "draws, sketches"),
    _executor(
        weights.BitFault,
        "exact comparison; suspended, pay kept",
        class_id="scripted/E",
        auditor_class="scripted/E",
        jobs_max=60,
    ),
    _group(
        "honest_all_classes",
        "honest nodes of four classes",
        "nobody, ever",
        partial(try_honest, Trial(Honest, jobs_max=60)),
    ),
    _executor(
        words.Forgetful,
        "not paid, and audited more",
        verified=ESTABLISHED,
        jobs_max=90,
        workload=SLOW,
    ),
    _executor(answers.WorksNot, "draws, sketches"),
    _executor(
        answers.SoleProvider,
        "nobody: there is no one to audit it",
        verified=ESTABLISHED,
        auditors=0,
        jobs_max=20,
    ),
    _executor(
        weights.OneFault,
        "two auditors; suspended for a while",
        class_id="scripted/E",
        auditor_class="scripted/E",
    ),
    _executor(
        weights.HitAndRun,
        "lottery: the less it has at stake, the more is drawn",
        verified=ESTABLISHED,
        jobs_max=8,
        workload=SLOW,
        seeds=tuple(range(1, 17)),
    ),
)
ADVERSARIES: Final = {adversary.name: adversary for adversary in _LISTED}

HEAD: Final = """# Adversaries

Who tries what, who sees it, and what it gains. Each line is a network of the production cores under
a virtual clock, with the adversary plugged in (`simnet/assay_simnet/behaviours/`), tried under
fixed seeds. `make adversaries` writes this page; each line has a test of its name in
`tests/adversaries/` that holds it to the code.

The models here are arithmetic whose drift is as large as the one measured of real ones
(`simnet/assay_simnet/language.py`). What real quantizations, caches and prompts do to real models
is measured by `bench/verify` and stands in [verification.md](verification.md).

- *passed before*: audits the adversary had passed honestly when the trial began. At 0 every job is
  audited, at 400 one in twenty.
- *stopped*: in how many runs it was stopped from serving or, as an auditor, seen to be at fault.
- *jobs*: the median of its jobs (audits, if it is an auditor) until then; or all it did.
- *profit*: beside an honest node that did the same jobs, in prices of a job: what it saved, less
  what it was not paid. What a stopped node could have earned later is not counted.

| adversary | does | seen by | passed before | stopped | jobs | profit | ends |
|---|---|---|---|---|---|---|---|
"""


def page(results: Sequence[tuple[Adversary, Result]]) -> str:
    """docs/adversaries.md."""
    return HEAD + "\n".join(adversary.line(result) for adversary, result in results) + "\n"


def main() -> int:
    """Print the page; progress goes to stderr."""
    results = []
    for adversary in ADVERSARIES.values():
        result = adversary.run()
        sys.stderr.write(adversary.line(result) + "\n")
        results.append((adversary, result))
    sys.stdout.write(page(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
