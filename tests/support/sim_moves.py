"""One move of a simulated history, chosen by a seeded generator.

Drawn one by one by hypothesis, most moves undo each other, and what is rare never occurs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.core.engine import ResumeMode
from runkon_server.store.locking import TERMINAL
from support.sim_connections import Fate

if TYPE_CHECKING:
    from random import Random

    from support.sim_world import SimWorld

NEMESES: Final = ("crash", "freeze", "thaw", "terminate")
REPORTS: Final = ("well",) * 6 + ("badly", "badly", "twice", "late", "contradiction", "forged")
SECONDS: Final = (0.0531, 0.2973, 1.1037, 3.1091, 7.5073)
"""Odd on purpose: nothing is due in the very instant at which somebody looks."""
MOVES: Final = (
    "start", "run some", "run some", "run all", "nemesis", "next commit", "tick", "tick",
    "network", "crash of the database", "report", "report", "report", "reconnect",
    "beat", "vote", "cancel", "resume", "follow",
)  # fmt: skip


def move(world: SimWorld, chance: Random) -> None:
    """Let something happen."""
    pick = chance.choice
    replica = pick(world.replicas)
    match pick(MOVES):
        case "start":
            world.start(replica, chance.randrange(3), chance.randrange(6))
        case "run some":
            replica.turn(chance.randint(1, 12))
        case "run all":
            world.turn_all()
        case "nemesis":
            world.nemesis(chance.randrange(3), pick(NEMESES))
        case "next commit":
            world.faults.fates.append(pick(list(Fate)))
        case "tick":
            world.pass_time(pick(SECONDS))
            world.turn_all(6)
        case "network":
            world.faults.is_away = chance.random() < 0.3
            world.drops_hints = chance.random() < 0.4
        case "crash of the database":
            world.crash_database()
        case "report":
            world.report(pick(world.workers), pick(REPORTS))
            world.turn_all(3)
        case "reconnect":
            pick(world.workers).connect(replica)
        case "beat":
            pick(world.workers).beat()
        case "vote" if world.tables.gates:
            approve = chance.random() < 0.5
            world.vote(
                replica, pick(list(world.tables.gates)), pick(["ann", "bob"]), approve=approve
            )
        case "cancel" if world.tables.runs and chance.random() < 0.5:
            world.cancel(replica, pick(world.run_ids()), force=chance.random() < 0.25)
        case "resume":
            ended = [run["id"] for run in world.tables.runs.values() if run["status"] in TERMINAL]
            if ended:
                world.resume(replica, pick(ended), pick([ResumeMode.NORMAL, ResumeMode.RESTART]))
        case "follow" if world.followers:
            pick(world.followers).read()
        case _:
            pass


def decide(world: SimWorld, chance: Random) -> None:
    """Let people look after the gates that are open, or lose patience with their runs."""
    for gate in world.pending_gates():
        replica = chance.choice(world.replicas)
        if chance.random() < 0.4:
            world.cancel(replica, world.tables.gates[gate]["run_id"], force=False)
        else:
            who = chance.choice(["ann", "bob"])
            world.vote(replica, gate, who, approve=chance.random() < 0.5)
    if world.tables.runs and chance.random() < 0.2:
        world.cancel(chance.choice(world.replicas), chance.choice(world.run_ids()), force=False)
    world.turn_all(3)


def calm(world: SimWorld, chance: Random) -> None:
    """Let all go well for a while, so that runs get to their ends; then take one up again.

    Among faults alone few runs get far enough to be resumed or to end as children.
    """
    running = [each for each in world.replicas if each.is_running]
    for worker in world.workers:
        if running and not worker.is_connected:
            worker.connect(chance.choice(running))
    # The first request once more: the same, or another under its name.
    world.start(chance.choice(world.replicas), chance.randrange(3), 0)
    are_people_there = chance.random() < 0.5
    for _ in range(chance.randint(2, 6)):
        for worker in world.workers:
            world.report(worker, "well" if chance.random() < 0.8 else "badly")
        for gate in world.pending_gates() if are_people_there else ():
            approve = chance.random() < 0.6
            world.vote(
                chance.choice(world.replicas), gate, chance.choice(["ann", "bob"]), approve=approve
            )
        world.pass_time(chance.choice(SECONDS[:4]))
        world.turn_all(6)
    if world.tables.gates:  # somebody answers what has long been answered, or has timed out
        gate = chance.choice(list(world.tables.gates))
        world.vote(chance.choice(world.replicas), gate, "ann", approve=True)
    ended = [run["id"] for run in world.tables.runs.values() if run["status"] in TERMINAL]
    if ended:
        mode = chance.choice([ResumeMode.NORMAL, ResumeMode.RESTART])
        world.resume(chance.choice(world.replicas), chance.choice(ended), mode)
        world.turn_all(3)
