"""`runkon explain`, `runkon top` and `runkon runs count`, against a server of the test."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import timedelta

from click.testing import CliRunner
from google.protobuf.timestamp_pb2 import Timestamp

from runkon.v1 import explanations_pb2, runs_pb2, types_pb2, workers_pb2
from runkon_client import SyncClient
from runkon_client.cli import main
from runkon_client.cli.top import fitting, look, sight_lines
from support.fake_server import serving
from support.run_events import RUN_ID

EXPLANATION = explanations_pb2.Explanation(
    run_id=RUN_ID,
    workflow_name="release",
    status=types_pb2.RUN_STATUS_WAITING,
    headline="child run C has not ended",
    time=Timestamp(seconds=1_767_322_100),
    blockers=[
        explanations_pb2.Blocker(
            kind=explanations_pb2.BLOCKER_KIND_CHILD_RUN,
            text="child run C has not ended",
            step_name="workflow:build",
            child=explanations_pb2.Explanation(
                run_id="C",
                workflow_name="build",
                status=types_pb2.RUN_STATUS_RUNNING,
                time=Timestamp(seconds=1_767_322_100),
                blockers=[
                    explanations_pb2.Blocker(
                        kind=explanations_pb2.BLOCKER_KIND_QUEUED_TASK,
                        text="no worker for `plan` has been connected",
                        remedy="start a worker that serves `plan`",
                        needs_action=True,
                        step_name="plan",
                        since_time=Timestamp(seconds=1_767_322_040),
                    )
                ],
            ),
        )
    ],
    blockers_left_out=3,
)
RUN = types_pb2.Run(id=RUN_ID, workflow_name="w", status=types_pb2.RUN_STATUS_RUNNING)


def test_an_explanation_is_drawn_with_children_below_what_waits_for_them() -> None:
    with serving() as server:
        server.answers["ExplainRun"] = runs_pb2.ExplainRunResponse(explanation=EXPLANATION)
        result = CliRunner().invoke(main, ["--address", server.address, "explain", RUN_ID])

    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        f"{RUN_ID}  release  waiting",
        "  · workflow:build: child run C has not ended",
        "    C  build  running",
        "      ! plan: no worker for `plan` has been connected",
        "        for 1 min 0 s",
        "        → start a worker that serves `plan`",
        "  … and 3 more",
    ]


def test_an_explanation_can_be_had_as_json() -> None:
    with serving() as server:
        server.answers["ExplainRun"] = runs_pb2.ExplainRunResponse(explanation=EXPLANATION)
        arguments = ["--address", server.address, "--json", "explain", RUN_ID]
        result = CliRunner().invoke(main, arguments)

    (blocker,) = json.loads(result.output)["blockers"]
    assert blocker["details"]["blockers"][0]["needs_action"] is True


def test_a_count_that_is_not_exact_says_so() -> None:
    for exact, said in ((True, "7\n"), (False, "7 or more\n")):
        with serving() as server:
            server.answers["CountRuns"] = runs_pb2.CountRunsResponse(count=7, exact=exact)
            result = CliRunner().invoke(main, ["--address", server.address, "runs", "count"])

        assert result.output == said


def test_top_shows_what_is_active_and_how_fast_that_changes() -> None:
    worker = workers_pb2.ConnectedWorker(worker_id="a", replica="r1", concurrency=4)
    counts = iter((5, 3, 2, 1, 0))
    with serving() as server, SyncClient(server.address) as client:
        server.answers |= {
            "CountRuns": lambda _: runs_pb2.CountRunsResponse(count=next(counts)),
            "ListRuns": runs_pb2.ListRunsResponse(runs=[RUN]),
            "ListWorkers": workers_pb2.ListWorkersResponse(workers=[worker]),
        }
        sight = look(client, 20)

    earlier = replace(
        sight, at=sight.at - timedelta(seconds=2), counts={**sight.counts, "running": 1}
    )
    lines = sight_lines(sight, earlier)
    assert lines[0] == ("running 5 (+2.0/s)  waiting 3  pending 2  cancelling 1  needs_resume 0")
    assert lines[1] == "workers 1 for 4 tasks at a time, at replicas r1"
    assert lines[-1].split()[:3] == [RUN_ID, "w", "running"]


def test_top_is_cut_to_the_screen() -> None:
    """A line that folds, or one too many, would scroll the counts away."""
    lines = ["counts of runs", "workers", "", "RUN", "a", "b", "c"]

    assert fitting(lines, os.terminal_size((80, 24))) == lines
    assert fitting(lines, os.terminal_size((6, 7)))[0] == "counts"
    assert fitting(lines, os.terminal_size((80, 5)))[3:] == [
        "RUN",
        "and 3 more: make the window higher",
    ]
