"""What verification means over a node's life: honest ones stay, patient traitors lose.

    python bench/verify/lifetime.py [--audits 100000] [--table FILE.npz]

Resamples findings of real audits (noted.py) through the coordinator's own evidence, quorum and
inquiry, once by noise fitted from the other half of the jobs, once by the table that is built in.
Honest nodes of every class, audited by others at random: nobody may be convicted. Cheats: audits
until the alarm, and how many are convicted by what they have in escrow. A patient traitor who is
honest until so many audits passed, then cheats in every job: share of bad jobs among those
accepted, and profit against staying honest, in prices of a job; no stake, pay of 60 jobs held back,
a tenth of the auditors its friends. BOINC's adaptive replication against the same. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random
from statistics import mean, median
from typing import Any, Final

from adaptive_replication import bad_share
from assay_coordinator.core.evidence import MICRO
from assay_coordinator.core.policy import Policy
from lives import Life
from noted import RECORDED, read_table
from traitor import Traitor
from words import Words, of_one

AUDITS_OF_LIFE: Final = 2_000
ESCROW: Final = 60
PATIENCE: Final = (400, 4_000)  # audits passed
TRIALS: Final = 40
CHEAT_LIVES: Final = 100
AUDITS_MAX: Final = 400  # of a cheat before it counts as never caught
DECLARED: Final = "flash > plain"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--audits", type=int, default=100_000)
    parser.add_argument("--table", type=Path, default=RECORDED)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random, policy = Random(options.seed), Policy()
    table = read_table(options.table)
    words = Words(table, DECLARED)
    figures: dict[str, Any] = {"bench": "lifetime"}
    figures |= honest_lives(random, policy, words, options.audits)
    figures["cheats"] = {name: caught(random, policy, words, name) for name in words.cheats}
    unfitted = Words(table, DECLARED, built_in=True)
    print("by the table that is built in:")
    figures["built_in"] = honest_lives(random, policy, unfitted, options.audits) | {
        "cheats": {name: caught(random, policy, unfitted, name) for name in unfitted.cheats}
    }
    figures["traitors"] = traitors(random, policy, words)
    figures["boinc_bad_share"] = {
        str(patience): round(bad_share(patience, 4_000 if patience < 50 else 400, 1), 4)
        for patience in (10, 20, 50)
    }
    print("BOINC's adaptive replication:", figures["boinc_bad_share"])
    print(json.dumps(figures))


def honest_lives(random: Random, policy: Policy, words: Words, audits: int) -> dict[str, Any]:
    """Alarms, inquiries and convictions among so many audits, in lives of AUDITS_OF_LIFE."""
    done = convictions = inquiries = lives = 0
    highest = 0
    while done < audits:
        answers = random.choice(sorted(words.honest.items()))[1]
        life, lives = Life(policy), lives + 1
        for _ in range(AUDITS_OF_LIFE):
            life.audited(of_one(random, answers), _wanted(random, policy))
            highest = max(highest, life.level)
            done += 1
            if life.state == "inquiry":
                for _ in range(ESCROW):
                    life.audited(of_one(random, answers), 2)
                    done += 1
            if life.state == "convicted":
                convictions += 1
                break
            if life.state == "inquiry":
                life.suspended()
        inquiries += life.inquiries
    said = [word for answers in words.honest.values() for answer in answers for word in answer]
    found = {
        "honest_audits": done,
        "honest_lives": lives,
        "honest_inquiries": inquiries,
        "honest_convictions": convictions,
        "honest_highest_nats": round(highest / MICRO, 2),
        "honest_doubtful": round(mean(word.doubtful for word in said), 5),
        "honest_wrong": round(mean(word.wrong for word in said), 5),
    }
    print(found, flush=True)
    return found


def caught(random: Random, policy: Policy, words: Words, name: str) -> dict[str, Any]:
    """Audits of a node that always cheats: until it gets no more jobs, or AUDITS_MAX."""
    counts, convicted = [], 0
    for _ in range(CHEAT_LIVES):
        life, audits = Life(policy), 0
        while life.state in ("probation", "active") and audits < AUDITS_MAX:
            life.audited(of_one(random, words.cheats[name]), _wanted(random, policy))
            audits += 1
        counts.append(audits)
        for _ in range(ESCROW):  # what it has in escrow are cheats, too
            if life.state == "inquiry":
                life.audited(of_one(random, words.cheats[name]), 2)
        convicted += life.state == "convicted"
    found = {
        "stopped_after_audits": median(counts),
        "convicted": round(convicted / CHEAT_LIVES, 3),
    }
    print(f"{name:17}", found, flush=True)
    return found


def traitors(random: Random, policy: Policy, words: Words) -> list[dict[str, Any]]:
    rows = []
    for name in ("Q4_K_M", "Q6_K", "prefill forger"):
        if name not in words.cheats:
            continue
        for patience in PATIENCE:
            lives = [Traitor(random, policy, words, name, patience).live() for _ in range(TRIALS)]
            accepted = sum(life.accepted for life in lives)
            row = {
                "cheat": name,
                "patience": patience,
                "bad_share": round(sum(life.bad for life in lives) / accepted, 5),
                "bad_jobs": round(mean(life.bad for life in lives), 1),
                "profit": round(mean(life.profit for life in lives), 1),
                "profit_p95": round(sorted(life.profit for life in lives)[-1 - TRIALS // 20], 1),
            }
            print(row, flush=True)
            rows.append(row)
    return rows


def _wanted(random: Random, policy: Policy) -> int:
    """How many must find a job right: two of some."""
    return 1 + (random.random() * 10_000 < policy.reaudit_bps)


if __name__ == "__main__":
    main()
