"""`runkon limits`, `replicas`, `retention` and `workflows delete`, against a server of the test."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from runkon.v1 import admin_pb2, workflows_pb2
from runkon_client.cli import main
from runkon_client.cli.exits import Exit
from support.fake_server import FakeServer, Refusal, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = admin_pb2.ActionLimit(
    action="mail", concurrency=2, rate_per_second=0.5, running=2, queued=7
)
LIMIT.next_task_time.FromSeconds(int(time.time()) + 3_600)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as served:
        yield served


def said(server: FakeServer, *words: str, code: Exit = Exit.OK, answer: str = "") -> str:
    """What a command prints."""
    arguments = ["--address", server.address, *words]
    result = CliRunner().invoke(main, arguments, input=answer)
    assert result.exit_code == code, result.output
    return result.output


def test_limits_are_set_with_both_halves_or_one(server: FakeServer) -> None:
    server.answers["SetActionLimit"] = admin_pb2.SetActionLimitResponse(limit=LIMIT)
    words = ("limits", "set", "mail")
    assert said(server, *words, "--concurrency", "2", "--rate", "0.5") == (
        "mail: 2 at once, 0.5 per second\n"
    )
    asked = server.asked("SetActionLimit")
    assert (asked.action, asked.concurrency, asked.rate_per_second) == ("mail", 2, 0.5)

    said(server, *words, "--concurrency", "0")
    _, asked = server.requests[-1]
    assert (asked.HasField("concurrency"), asked.HasField("rate_per_second")) == (True, False)
    assert "--concurrency" in said(server, *words, code=Exit.USAGE)


def test_limits_are_listed_with_what_is_in_use(server: FakeServer) -> None:
    server.answers["ListActionLimits"] = admin_pb2.ListActionLimitsResponse()
    assert "no action is limited" in said(server, "limits", "list")
    server.answers["ListActionLimits"] = admin_pb2.ListActionLimitsResponse(
        limits=[LIMIT, admin_pb2.ActionLimit(action="plan", concurrency=1)]
    )
    header, mail, plan = said(server, "limits", "list").splitlines()

    assert header.split() == ["ACTION", "LIMIT", "RUNNING", "QUEUED", "NEXT"]
    assert mail.startswith("mail    2 at once, 0.5 per second  2        7       in ")
    assert plan.split() == ["plan", "1", "at", "once", "0", "0"]
    (first, second) = json.loads(said(server, "--json", "limits", "list"))
    assert (first["rate_per_s"], second["rate_per_s"], second["next_task_at"]) == (0.5, None, None)


@pytest.mark.parametrize(("cleared", "text"), [(True, "no limit"), (False, "no limit, as before")])
def test_clearing_says_whether_there_was_one(server: FakeServer, cleared: bool, text: str) -> None:  # noqa: FBT001 - a case
    server.answers["ClearActionLimit"] = admin_pb2.ClearActionLimitResponse(cleared=cleared)

    assert said(server, "limits", "clear", "mail") == f"mail: {text}\n"


def test_replicas_are_listed_with_their_state(server: FakeServer) -> None:
    """Live, draining, and gone whatever it said last."""
    long_ago = Timestamp(seconds=int(time.time()) - 7_500)
    server.answers["ListReplicas"] = admin_pb2.ListReplicasResponse(
        replicas=[
            admin_pb2.Replica(
                id=name,
                version="1.2",
                start_time=long_ago,
                last_seen_time=long_ago,
                live=live,
                draining=draining,
                runs_owned=4,
            )
            for name, live, draining in (
                ("a", True, False),
                ("b", True, True),
                ("c", False, True),
            )
        ]
    )
    _, *rows = said(server, "replicas").splitlines()

    assert [row.split()[:2] for row in rows] == [["a", "live"], ["b", "draining"], ["c", "gone"]]
    assert "2 h 5 min ago  4     0        1.2" in rows[0]
    assert json.loads(said(server, "replicas", "--json"))[2]["is_live"] is False


@pytest.mark.parametrize(
    ("words", "policy", "value"),
    [
        (("30d",), "keep_for", Duration(seconds=30 * 86_400)),
        (("forever",), "keep_forever", True),
        (("inherit",), "inherit", True),
        (("12h", "--all"), "keep_for", Duration(seconds=12 * 3_600)),
    ],
)
def test_retention_is_set_as_it_was_said(
    server: FakeServer, words: tuple[str, ...], policy: str, value: object
) -> None:
    server.answers["SetRetention"] = admin_pb2.SetRetentionResponse()
    said(server, "--namespace", "audit", "retention", "set", *words)
    asked = server.asked("SetRetention")

    assert asked.WhichOneof("policy") == policy
    assert getattr(asked, policy) == value
    is_for_all = "--all" in words
    assert (asked.for_all, asked.namespace) == (is_for_all, "" if is_for_all else "audit")


def test_retention_tells_what_holds_and_why(server: FakeServer) -> None:
    for retention, text in (
        (admin_pb2.Retention(namespace="audit"), "audit: kept for ever\n"),
        (
            admin_pb2.Retention(keep_for=Duration(seconds=86_400), inherited=True),
            "all namespaces: kept for 1 day (the default)\n",
        ),
        (
            admin_pb2.Retention(namespace="brief", keep_for=Duration(seconds=129_600)),
            "brief: kept for 36 hours\n",
        ),
        (
            admin_pb2.Retention(namespace="none", keep_for=Duration()),
            "none: kept for 0 days\n",
        ),
    ):
        server.answers["GetRetention"] = admin_pb2.GetRetentionResponse(retention=retention)
        assert said(server, "retention", "get") == text
    assert "no span" in said(server, "retention", "set", "soon", code=Exit.USAGE)


def test_a_workflow_is_deleted_once_that_was_confirmed(server: FakeServer) -> None:
    """A no asks the server nothing; a version is refused, since a name goes as a whole."""
    said(server, "workflows", "delete", "w", code=Exit.FAILED, answer="n\n")
    server.answers["DeleteWorkflow"] = workflows_pb2.DeleteWorkflowResponse(deleted=2)
    assert said(server, "workflows", "delete", "w", "--yes") == "w deleted, 2 versions\n"
    assert server.asked("DeleteWorkflow").name == "w"
    server.answers["DeleteWorkflow"] = workflows_pb2.DeleteWorkflowResponse()
    assert said(server, "workflows", "delete", "w", "--yes") == "w was deleted before\n"
    assert "@VERSION" in said(server, "workflows", "delete", "w@1", "--yes", code=Exit.USAGE)


def test_who_is_no_administrator_learns_of_another_way(server: FakeServer) -> None:
    server.answers["ListReplicas"] = Refusal(
        grpc.StatusCode.PERMISSION_DENIED, "ADMIN_REQUIRED", "zoe is no administrator"
    )

    assert "runkon-server limits" in said(server, "replicas", code=Exit.REFUSED)
