"""Gates that need several people, that exclude one, and that nobody answers in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runkon_client import Client, PermissionDeniedError, PreconditionError
from runkon_client.values import EventKind, GateResolved, GateState, RunStatus

if TYPE_CHECKING:
    from e2e.conftest import Place

QUORUM = """workflow w {
  gate human_approval { name = release approvers = 2 exclude_starter = true }
}"""


def timed(policy: str) -> str:
    return f"""workflow w {{
  gate human_review {{ name = review timeout = "1s" on_timeout = {policy} }}
}}"""


async def test_two_people_have_to_approve_and_not_the_one_who_started(
    client: Client, place: Place
) -> None:
    """One vote twice is one vote; the second person's closes the gate."""
    run = await client.start_run(source=QUORUM)
    async with (
        Client(place.address, namespace=place.namespace, principal="bob") as bob,
        Client(place.address, namespace=place.namespace, principal="cyn") as cyn,
    ):
        gate = run.gate("release")
        with pytest.raises(PermissionDeniedError) as own:
            await gate.approve()
        first = await bob.run(run.id).gate("release").approve("fine")
        again = await bob.run(run.id).gate("release").approve("fine")
        second = await cyn.run(run.id).gate("release").approve()
    ended = await run.wait()

    assert own.value.reason == "GATE_STARTER_EXCLUDED"
    assert (first.state, again.state) == (GateState.PENDING, GateState.PENDING)
    assert [vote.principal for vote in again.votes] == ["bob"]
    assert (second.state, second.resolved_by) == (GateState.APPROVED, "cyn")
    assert [vote.principal for vote in second.votes] == ["bob", "cyn"]
    assert ended.status is RunStatus.COMPLETED


async def test_one_rejection_decides(client: Client, place: Place) -> None:
    """However many approvals there are or would be needed; the run fails and says why."""
    run = await client.start_run(source=QUORUM)
    async with (
        Client(place.address, namespace=place.namespace, principal="bob") as bob,
        Client(place.address, namespace=place.namespace, principal="cyn") as cyn,
    ):
        await bob.run(run.id).gate("release").approve()
        gate = await cyn.run(run.id).gate("release").reject("not on a Friday")
    ended = await run.wait()

    assert (gate.state, gate.resolved_by) == (GateState.REJECTED, "cyn")
    assert ended.status is RunStatus.FAILED
    assert "not on a Friday" in ended.error


@pytest.mark.parametrize(
    ("policy", "status"), [("continue", RunStatus.COMPLETED), ("fail", RunStatus.FAILED)]
)
async def test_a_deadline_decides_as_the_gate_says(
    client: Client, policy: str, status: RunStatus
) -> None:
    """On_timeout; the event says so, not before its time, and a late answer is refused."""
    run = await client.start_run(source=timed(policy))
    ended = await run.wait()
    gate = await run.gate("review").get()
    with pytest.raises(PreconditionError) as late:
        await run.gate("review").approve()
    (resolved,) = [event async for event in run.events(kinds=[EventKind.GATE_RESOLVED])]

    assert ended.status is status
    assert gate.state is GateState.TIMED_OUT
    assert late.value.reason == "GATE_TIMED_OUT"
    assert isinstance(resolved, GateResolved)
    assert gate.opened_at is not None
    assert (resolved.at - gate.opened_at).total_seconds() >= 1


async def test_a_gate_that_is_answered_by_many_at_once_has_one_winner(
    client: Client, place: Place
) -> None:
    """Ten people answer in the same moment: one decides, all others are told who."""
    run = await client.start_run(source="workflow w { gate human_approval { name = go } }")
    people = [
        Client(place.address, namespace=place.namespace, principal=f"p{number}")
        for number in range(10)
    ]
    answers = await asyncio.gather(
        *(
            person.run(run.id).gate("go").approve()
            if number % 2
            else person.run(run.id).gate("go").reject()
            for number, person in enumerate(people)
        ),
        return_exceptions=True,
    )
    for person in people:
        await person.close()
    gate = await run.gate("go").get()
    await run.wait()
    losers = [answer for answer in answers if isinstance(answer, PreconditionError)]

    assert len(losers) == 9
    assert {loser.metadata["resolved_by"] for loser in losers} == {gate.resolved_by}
    assert len([event async for event in run.events(kinds=[EventKind.GATE_RESOLVED])]) == 1


async def test_a_cancelled_run_closes_its_gate(client: Client) -> None:
    """Nobody can answer it any more."""
    run = await client.start_run(source="workflow w { gate human_approval { name = go } }")
    await run.cancel("changed our minds")
    ended = await run.wait()
    with pytest.raises(PreconditionError) as late:
        await run.gate("go").approve()

    assert (ended.status, ended.cancel_reason) == (RunStatus.CANCELLED, "changed our minds")
    assert (await run.gate("go").get()).state is GateState.CANCELLED
    assert late.value.reason == "GATE_CLOSED"
