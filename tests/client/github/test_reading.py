"""What GitHub's answers mean, which pull request is meant, and whose token is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from client.github.forge import review

from runkon_client.github.reading import (
    UnreadableAnswerError,
    read_approvals,
    read_checks,
    read_decision,
    read_list,
    read_pull,
)
from runkon_client.github.references import (
    NoPullRequestError,
    PullRequestReference,
    find_reference,
)
from runkon_client.github.tokens import Token, Tokens, UnknownIdentityError
from runkon_client.values import CheckState, ReviewDecision

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("reviews", "standing"),
    [
        ([], []),
        ([review("bo", "APPROVED", "c1")], [("bo", "c1")]),
        ([review("bo", "APPROVED"), review("cy", "APPROVED")], [("bo", "c2"), ("cy", "c2")]),
        ([review("bo", "APPROVED", "c1"), review("bo", "APPROVED", "c2")], [("bo", "c2")]),
        ([review("bo", "APPROVED"), review("bo", "CHANGES_REQUESTED")], []),
        ([review("bo", "CHANGES_REQUESTED"), review("bo", "APPROVED")], [("bo", "c2")]),
        ([review("bo", "APPROVED"), review("bo", "DISMISSED")], []),
        ([review("bo", "APPROVED"), review("bo", "COMMENTED")], [("bo", "c2")]),
        ([review("bo", "PENDING"), review(None, "APPROVED")], []),
    ],
)
def test_an_approval_stands_until_its_reviewer_says_otherwise(
    reviews: list[Any], standing: list[tuple[str, str]]
) -> None:
    """Each reviewer's last word; a comment is none, and an account that is gone has none."""
    assert [(each.reviewer, each.commit) for each in read_approvals(reviews)] == standing


@pytest.mark.parametrize(
    ("status", "conclusion", "state"),
    [
        ("queued", None, CheckState.PENDING),
        ("in_progress", None, CheckState.PENDING),
        ("waiting", None, CheckState.PENDING),
        ("completed", "success", CheckState.SUCCEEDED),
        ("completed", "skipped", CheckState.SKIPPED),
        ("completed", "neutral", CheckState.SKIPPED),
        *(
            ("completed", bad, CheckState.FAILED)
            for bad in (
                "failure",
                "cancelled",
                "timed_out",
                "action_required",
                "stale",
                "new",
                None,
            )
        ),
    ],
)
def test_a_check_run_stands_as_it_ended(
    status: str, conclusion: str | None, state: CheckState
) -> None:
    """Every end that is not known to be good is bad."""
    (check,) = read_checks([{"name": "ci", "status": status, "conclusion": conclusion}], [])

    assert (check.name, check.state) == ("ci", state)


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("success", CheckState.SUCCEEDED),
        ("pending", CheckState.PENDING),
        ("failure", CheckState.FAILED),
        ("error", CheckState.FAILED),
    ],
)
def test_a_commit_status_is_a_check_as_well(said: str, state: CheckState) -> None:
    """Older tools report that way."""
    (check,) = read_checks([], [{"context": "ci/old", "state": said}])

    assert (check.name, check.state) == ("ci/old", state)


def test_of_too_many_checks_the_bad_ones_stay() -> None:
    """The server takes 1,000; cutting must not make a pull request better than it is."""
    runs = [{"name": f"{n}", "status": "completed", "conclusion": "success"} for n in range(1500)]
    runs.append({"name": "last", "status": "completed", "conclusion": "failure"})
    checks = read_checks(runs, [])

    assert len(checks) == 1000
    assert checks[0].state is CheckState.FAILED


@pytest.mark.parametrize(
    ("said", "decision"),
    [
        ("APPROVED", ReviewDecision.APPROVED),
        ("CHANGES_REQUESTED", ReviewDecision.CHANGES_REQUESTED),
        ("REVIEW_REQUIRED", ReviewDecision.REVIEW_REQUIRED),
        (None, ReviewDecision.UNKNOWN),
    ],
)
def test_the_review_decision_is_the_forges_own(said: str | None, decision: ReviewDecision) -> None:
    """A repository without rules has none."""
    answer = {"data": {"repository": {"pullRequest": {"reviewDecision": said}}}}

    assert read_decision(answer) is decision


@pytest.mark.parametrize("answer", [None, [], "x", 1, {}, {"head": None}, {"head": {"sha": 1}}])
def test_another_shape_is_an_error(answer: Any) -> None:
    """Never an exception that nobody expects."""
    with pytest.raises(UnreadableAnswerError):
        read_pull(answer)
    with pytest.raises(UnreadableAnswerError):
        read_decision(answer)
    with pytest.raises(UnreadableAnswerError):
        read_list(answer, "check_runs")
    with pytest.raises(UnreadableAnswerError):
        read_checks([answer], [])


@pytest.mark.parametrize(
    "variables",
    [
        {"pull_request": "https://github.com/o/r/pull/7"},
        {"pull_request": " https://GitHub.com/o/r/pull/7/files#diff "},
        {"pr_url": "https://github.com/o/r/pull/7?x=1"},
        {"pr": "o/r#7", "repository": "other/r", "pr_number": "8"},
        {"repository": "o/r", "pr_number": "7"},
        {"pull_request": "", "pr": "o/r#7"},
    ],
)
def test_a_runs_variables_name_the_pull_request(variables: dict[str, str]) -> None:
    """As a URL, in short, or in two variables; a run may have others besides."""
    reference = find_reference(variables | {"ticket": "T-1"}, "github.com")

    assert reference == PullRequestReference("o", "r", 7)
    assert str(reference) == "o/r#7"


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "no variable"),
        ({"repository": "o/r"}, "names no pull request"),
        ({"pull_request": "https://elsewhere.example/o/r/pull/7"}, "not on github.com"),
        ({"pull_request": "https://github.com@elsewhere.example/o/r/pull/7"}, "names no"),
        ({"pull_request": "https://github.com/o/r/issues/7"}, "names no"),
        ({"pull_request": "http://github.com/o/r/pull/7"}, "names no"),
        ({"pr": "o/..#7"}, "names no"),
        ({"pr": "o/r/../../x#7"}, "names no"),
        ({"pr": "o/r#0"}, "names no"),
        ({"pr": "o/r#99999999999"}, "names no"),
        ({"pr": "o/r#7\n"}, ""),
    ],
)
def test_what_names_none_is_an_error(variables: dict[str, str], reason: str) -> None:
    """Another forge, another thing, a path; nothing of the value is in the text."""
    if reason == "":
        assert find_reference(variables, "github.com").number == 7
        return
    with pytest.raises(NoPullRequestError, match=reason):
        find_reference(variables, "github.com")


def test_each_identity_has_its_token(tmp_path: Path) -> None:
    """From variables and a file, which wins; names are compared as variables can spell them."""
    file = tmp_path / "tokens"
    file.write_text("# ours\nrelease-bot = two\n\nqa=three\n", encoding="utf-8")
    environment = {
        "GITHUB_TOKEN": "zero",
        "RUNKON_GITHUB_TOKEN_RELEASE_BOT": "one",
        "RUNKON_GITHUB_TOKEN_OPS": "four",
        "PATH": "x",
    }
    tokens = Tokens.read(environment, file)

    def secret(identity: str) -> str | None:
        token = tokens.of(identity)
        return None if token is None else token.reveal()

    assert [secret(name) for name in ("", "release-bot", "qa", "ops")] == [
        "zero", "two", "three", "four"
    ]  # fmt: skip
    assert Tokens.read({}).of("") is None


def test_a_file_that_others_can_read_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not refused: in a container it may have been mounted that way."""
    file = tmp_path / "tokens"
    file.write_text("bot=one", encoding="utf-8")
    file.chmod(0o600)
    Tokens.read({}, file)
    quiet = caplog.text
    file.chmod(0o644)
    Tokens.read({}, file)

    assert quiet == ""
    assert f"{file} can be read by other users" in caplog.text


def test_no_identity_acts_as_another() -> None:
    """The default token is not for an identity that has none."""
    with pytest.raises(UnknownIdentityError, match="no token for the identity bot"):
        Tokens.read({"GITHUB_TOKEN": "zero"}).of("bot")


@pytest.mark.parametrize("bad", ["two words", "new\nline", "ümlaut", "\x7f"])
def test_48_a_token_shows_itself_nowhere(bad: str, tmp_path: Path) -> None:
    """Neither as a value nor in the error about one that cannot be sent."""
    file = tmp_path / "tokens"
    file.write_text("bot = two words", encoding="utf-8")

    assert "canary" not in f"{Token('canary')} {Token('canary')!r} {[Token('canary')]}"
    with pytest.raises(ValueError, match="GITHUB_TOKEN: a token is") as caught:
        Tokens.read({"GITHUB_TOKEN": f"canary {bad}"})
    assert "canary" not in str(caught.value)
    with pytest.raises(ValueError, match="tokens:1: a token is"):
        Tokens.read({}, file)
