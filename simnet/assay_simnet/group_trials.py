"""Adversaries that are more than one key, or not a node at all."""

from __future__ import annotations

from dataclasses import dataclass

from assay_simnet.behaviours.behaviour import Behaviour
from assay_simnet.behaviours.honest import Honest
from assay_simnet.behaviours.weights import WashPadder
from assay_simnet.parties.node import NodeParty
from assay_simnet.trials import SERVING, Result, Seen, Trial, measure, network, serves
from assay_simnet.workload import Workload
from assay_simnet.world import World

CLASSES = ("scripted/F", "scripted/E", "another/F", "another/E")


def try_whitewasher(trial: Trial) -> Result:
    """Cheats until it is stopped, then comes back under a new key, `jobs_max` jobs in all."""
    return Result(tuple(_whitewash(trial, seed) for seed in trial.seeds))


def try_swarm(trial: Trial, keys: int) -> Result:
    """`keys` nodes of as many operators cheat in turn until all are stopped."""
    return Result(tuple(_swarm(trial, seed, keys) for seed in trial.seeds))


def try_wash_trader(trial: Trial, workload: Workload) -> Result:
    """A node whose only client is its operator; its profit is what is left of the money it paid."""
    return Result(tuple(_wash(trial, workload, seed) for seed in trial.seeds))


def try_wash_padder(trial: Trial, padding: Workload, between: int) -> Result:
    """`between` jobs of its operator's own push each cheated job's pay out of what is held back."""
    return Result(tuple(_pad(trial, padding, between, seed) for seed in trial.seeds))


def try_honest(trial: Trial) -> Result:
    """Honest nodes of all classes: the worst of them is what is seen."""
    return Result(tuple(_honest(trial, seed) for seed in trial.seeds))


@dataclass(frozen=True)
class _Key:
    """One of an adversary's keys."""

    node: NodeParty
    behaviour: Behaviour

    def seen(self, world: World) -> Seen:
        return measure(world, self.node, self.behaviour.saves)


def _whitewash(trial: Trial, seed: int) -> Seen:
    world, client = network(trial, seed)
    keys: list[_Key] = []
    for _ in range(trial.jobs_max):
        if not keys or world.coordinator.standing(keys[-1].node.key).state not in SERVING:
            keys.append(_join(world, trial))
        trial.workload.ask(world, client, only=(keys[-1].node.key,))
    world.settle()
    return _together([key.seen(world) for key in keys])


def _swarm(trial: Trial, seed: int, count: int) -> Seen:
    world, client = network(trial, seed)
    keys = [_join(world, trial) for _ in range(count)]
    for number in range(trial.jobs_max):
        left = [k for k in keys if world.coordinator.standing(k.node.key).state in SERVING]
        if not left:
            break
        trial.workload.ask(world, client, only=(left[number % len(left)].node.key,))
    world.settle()
    return _together([key.seen(world) for key in keys])


def _wash(trial: Trial, workload: Workload, seed: int) -> Seen:
    world, client = network(trial, seed)
    key = _join(world, trial, operator=client.key)
    before = world.coordinator.balance("available", client.key)
    for _ in range(trial.jobs_max):
        workload.ask(world, client, only=(key.node.key,))
    world.settle()
    seen = key.seen(world)
    coordinator = world.coordinator
    has = coordinator.balance("available", client.key) - before
    has += coordinator.balance("escrow", key.node.key) + coordinator.balance("earned", key.node.key)
    rows = coordinator.jobs_of(key.node.key)
    price = sum(row.charged for row in rows) / len(rows)
    held = sum(row.charged for row in rows if row.state in ("held", "pending"))
    fee_to_come = held * coordinator.policy.fee_bps / 10_000
    return Seen(
        jobs=seen.jobs,
        stopped=seen.stopped,
        state=seen.state,
        cheated=seen.jobs,
        paid=seen.jobs,
        profit=(has - fee_to_come) / price,
    )


def _pad(trial: Trial, padding: Workload, between: int, seed: int) -> Seen:
    world, client = network(trial, seed)
    key, friend = _join(world, trial), world.add_client()
    assert isinstance(key.behaviour, WashPadder)
    key.behaviour.friend = friend.key
    asked = 0
    while asked < trial.jobs_max and serves(world, key.node):
        trial.workload.ask(world, client, only=(key.node.key,))
        asked += 1
        for _ in range(between):
            if serves(world, key.node):
                padding.ask(world, friend, only=(key.node.key,))
    world.settle()
    return measure(world, key.node, key.behaviour.saves, client=client.key)


def _honest(trial: Trial, seed: int) -> Seen:
    world, client = network(trial, seed)
    nodes = [world.add_node(Honest(), class_id=class_id) for class_id in CLASSES]
    world.idle(1)
    for number in range(trial.jobs_max):
        trial.workload.ask(world, client, only=(nodes[number % len(nodes)].key,))
    world.settle()
    return _together([measure(world, node, 0.0) for node in nodes])


def _join(world: World, trial: Trial, operator: bytes | None = None) -> _Key:
    behaviour = trial.behaviour()
    node = world.add_node(
        behaviour, verified=trial.verified, class_id=trial.class_id, operator=operator
    )
    world.idle(1)
    return _Key(node, behaviour)


def _together(seen: list[Seen]) -> Seen:
    states = sorted({one.state for one in seen})
    return Seen(
        jobs=sum(one.jobs for one in seen),
        stopped=any(one.stopped for one in seen),
        state="/".join(states),
        cheated=sum(one.cheated for one in seen),
        paid=sum(one.paid for one in seen),
        profit=sum(one.profit for one in seen),
    )
