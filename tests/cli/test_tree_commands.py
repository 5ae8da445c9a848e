"""Commands for resumes, items and pull requests, against a server that answers as told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from click.testing import CliRunner

from runkon.v1 import events_pb2, gates_pb2, runs_pb2, types_pb2
from runkon_client.cli import main
from runkon_client.cli.exits import Exit
from support.fake_server import FakeServer, serving
from support.run_events import RUN_ID

if TYPE_CHECKING:
    from collections.abc import Iterator

CHILD: Final = "01JD0000000000000000000001"
EACH: Final = f"{RUN_ID}/b.0001/e1/0"
GATE: Final = gates_pb2.Gate(
    id="g-1", run_id=RUN_ID, name="approval", state=gates_pb2.GATE_STATE_PENDING
)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as fake:
        fake.answers["ResumeRun"] = runs_pb2.ResumeRunResponse(
            run=types_pb2.Run(id=RUN_ID, status=types_pb2.RUN_STATUS_RUNNING, epoch=2)
        )
        fake.answers["ReportPullRequest"] = gates_pb2.ReportPullRequestResponse(
            gate=GATE, pending_reason="1 of 2 approvals"
        )
        yield fake


def invoke(server: FakeServer, *words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [*words, "--address", server.address, "--principal", "ada"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def steps(server: FakeServer, *found: tuple[str, str, types_pb2.StepRole.ValueType]) -> None:
    """Let the run have these steps: ids, names and roles."""
    server.answers["ListSteps"] = runs_pb2.ListStepsResponse(
        steps=[types_pb2.Step(id=key, step_name=name, role=role) for key, name, role in found]
    )


def test_a_resume_repeats_what_failed_the_run(server: FakeServer) -> None:
    code, out, _ = invoke(server, "runs", "resume", RUN_ID)

    asked = server.asked("ResumeRun")
    assert (code, out) == (Exit.OK, f"{RUN_ID} running, epoch 2\n")
    assert (asked.run_id, asked.mode) == (RUN_ID, events_pb2.RESUME_MODE_NORMAL)
    assert asked.request_id


@pytest.mark.parametrize("word", [f"{RUN_ID}/b.0002/e1/0", "plan"])
def test_a_resume_may_begin_at_a_step(server: FakeServer, word: str) -> None:
    """By its id, or by its name: then at the first of that name."""
    step_id = f"{RUN_ID}/b.0002/e1/0"
    server.answers["GetStep"] = runs_pb2.GetStepResponse(step=types_pb2.Step(id=step_id))
    actor = types_pb2.STEP_ROLE_ACTOR
    steps(server, ("x", "other", actor), (step_id, "plan", actor), ("y", "plan", actor))

    invoke(server, "runs", "resume", RUN_ID, "--from", word)

    asked = server.asked("ResumeRun")
    assert (asked.mode, asked.from_step_id) == (events_pb2.RESUME_MODE_FROM_STEP, step_id)


def test_a_restart_repeats_everything(server: FakeServer) -> None:
    _, out, _ = invoke(server, "runs", "resume", RUN_ID, "--restart", "--json")

    assert server.asked("ResumeRun").mode == events_pb2.RESUME_MODE_RESTART
    assert json.loads(out)["epoch"] == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--restart", "--from", "plan"], "does not go with --from"),
        (["--from", "nowhere"], "no step 'nowhere'"),
    ],
)
def test_a_resume_that_means_nothing_is_refused(
    server: FakeServer, words: list[str], complaint: str
) -> None:
    steps(server, ("x", "plan", types_pb2.STEP_ROLE_ACTOR))
    code, _, err = invoke(server, "runs", "resume", RUN_ID, *words)

    assert code == Exit.USAGE
    assert complaint in err
    assert "ResumeRun" not in dict(server.requests)


def test_a_resumed_run_may_be_watched(server: FakeServer) -> None:
    """It ends with the code of the run's end."""
    ended = types_pb2.Run(id=RUN_ID, status=types_pb2.RUN_STATUS_COMPLETED)
    server.answers["GetRun"] = runs_pb2.GetRunResponse(run=ended)
    resumed = events_pb2.RunEvent(seq=1, run_id=RUN_ID, epoch=2)
    resumed.run_resumed.resumed_by = "ada"
    server.answers["StreamRunEvents"] = [
        runs_pb2.StreamRunEventsResponse(header=runs_pb2.StreamHeader(head_seq=1)),
        runs_pb2.StreamRunEventsResponse(
            events=runs_pb2.EventBatch(events=[resumed], examined_seq=1)
        ),
        runs_pb2.StreamRunEventsResponse(end=runs_pb2.StreamEnd(head_seq=1, epoch=2)),
    ]

    code, out, _ = invoke(server, "runs", "resume", RUN_ID, "--watch", "--plain")

    assert code == Exit.OK
    assert "run resumed by ada, epoch 2" in out


def fan_out(server: FakeServer, *items: types_pb2.FanOutItem) -> None:
    foreach = types_pb2.STEP_ROLE_FOREACH
    steps(
        server, ("x", "plan", types_pb2.STEP_ROLE_ACTOR), ("old", "foreach:each", foreach),
        (EACH, "foreach:each", foreach),
    )  # fmt: skip
    server.answers["ListFanOutItems"] = runs_pb2.ListFanOutItemsResponse(items=items)


def test_items_are_listed_with_what_is_worth_knowing(server: FakeServer) -> None:
    """Why one failed, at which gate one waits; the newest row of the only foreach is meant."""
    blocked_on = types_pb2.BlockedOn(gate_id="g-7", run_id=CHILD)
    fan_out(
        server,
        types_pb2.FanOutItem(
            item_id="T-1", status=types_pb2.FAN_OUT_ITEM_STATUS_FAILED, error="no luck"
        ),
        types_pb2.FanOutItem(
            item_id="T-2",
            item_ref="the second",
            child_run_id=CHILD,
            status=types_pb2.FAN_OUT_ITEM_STATUS_RUNNING,
            blocked_on=blocked_on,
        ),
        types_pb2.FanOutItem(
            item_id="T-3", status=types_pb2.FAN_OUT_ITEM_STATUS_PENDING, blockers=[0, 1]
        ),
    )
    code, out, _ = invoke(server, "runs", "items", RUN_ID)

    failed, waits, pending = out.splitlines()[1:]
    assert code == Exit.OK
    assert server.asked("ListFanOutItems").step_id == EACH
    assert failed.split() == ["T-1", "failed", "no", "luck"]
    assert CHILD in waits
    assert waits.startswith("the second")
    assert waits.endswith("waits at gate g-7")
    assert pending.endswith("waits for 2 others")


def test_items_may_be_asked_for_by_state_and_as_json(server: FakeServer) -> None:
    fan_out(server, types_pb2.FanOutItem(item_id="T-1"))
    _, out, _ = invoke(
        server, "runs", "items", RUN_ID, "foreach:each", "--status", "failed", "--json"
    )

    asked = server.asked("ListFanOutItems")
    assert asked.status == types_pb2.FAN_OUT_ITEM_STATUS_FAILED
    assert json.loads(out)[0]["item_id"] == "T-1"


def test_one_of_several_foreachs_has_to_be_named(server: FakeServer) -> None:
    foreach = types_pb2.STEP_ROLE_FOREACH
    steps(server, ("a", "foreach:a", foreach), ("b", "foreach:b", foreach))
    code, _, err = invoke(server, "runs", "items", RUN_ID)

    assert code == Exit.USAGE
    assert "say which foreach is meant: foreach:a, foreach:b" in err


def test_a_run_without_a_foreach_has_no_items(server: FakeServer) -> None:
    steps(server, ("a", "plan", types_pb2.STEP_ROLE_ACTOR))
    code, _, err = invoke(server, "runs", "items", RUN_ID)

    assert (code, "has no foreach" in err) == (Exit.USAGE, True)


def test_a_report_of_a_pull_request_says_everything_and_hears_what_is_missing(
    server: FakeServer,
) -> None:
    code, out, _ = invoke(
        server,
        *("gates", "report-pr", "g-1", "--head", "c0ffee", "--author", "ada"),
        *("--approved-by", "zoe", "--approved-by", "bob=0ld"),
        *("--decision", "review-required", "--url", "https://forge.example/7"),
        *("--check", "build=x86=succeeded", "--check", "docs=skipped"),
    )

    seen = server.asked("ReportPullRequest")
    assert (code, out) == (Exit.OK, "approval waits: 1 of 2 approvals\n")
    assert (seen.gate_id, seen.pull_request.author) == ("g-1", "ada")
    assert [(each.reviewer, each.commit) for each in seen.pull_request.approvals] == [
        ("zoe", "c0ffee"),
        ("bob", "0ld"),
    ]
    assert seen.pull_request.review_decision == gates_pb2.REVIEW_DECISION_REVIEW_REQUIRED
    assert [(each.name, each.state) for each in seen.pull_request.checks] == [
        ("build=x86", gates_pb2.CHECK_STATE_SUCCEEDED),
        ("docs", gates_pb2.CHECK_STATE_SKIPPED),
    ]
    assert seen.pull_request.url == "https://forge.example/7"


def test_a_report_that_satisfies_the_gate_says_so(server: FakeServer) -> None:
    """The gate is found by its run and name."""
    approved = gates_pb2.Gate(name="approval", state=gates_pb2.GATE_STATE_APPROVED)
    server.answers["ReportPullRequest"] = gates_pb2.ReportPullRequestResponse(gate=approved)
    words = ["gates", "report-pr", RUN_ID, "approval", "--head", "c0ffee"]
    _, out, _ = invoke(server, *words)
    _, document, _ = invoke(server, *words, "--json")

    asked: Any = server.requests[0][1]
    assert out == "approval approved\n"
    assert (asked.run_gate.run_id, asked.run_gate.gate_name) == (RUN_ID, "approval")
    assert json.loads(document)["gate"]["state"] == "approved"


@pytest.mark.parametrize("check", ["build", "=failed", "build=broken"])
def test_a_check_needs_a_name_and_a_state(server: FakeServer, check: str) -> None:
    words = ["gates", "report-pr", "g-1", "--head", "c0ffee", "--check", check]
    code, _, err = invoke(server, *words)

    assert code == Exit.USAGE
    assert "is not NAME=pending|succeeded|skipped|failed" in err
