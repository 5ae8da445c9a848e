"""The API over HTTP: pages, ETags, pauses, faults; and where tokens go."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest
from client.github.forge import Forge, Reply, review, serve_forge

from runkon_client.github import GitHub, rest
from runkon_client.github.rest import GitHubError, RateLimitedError, RefusedError
from runkon_client.github.tokens import Token

if TYPE_CHECKING:
    from collections.abc import Callable

PULL = "repos/o/r/pulls/7"
CANARY = "ghp_canary"


async def all_pages(github: GitHub, path: str, token: Token | None = None) -> list[object]:
    return [item async for page in github.pages(path, token) for item in page]


async def test_a_list_is_read_to_its_end(forge: Forge, github: GitHub) -> None:
    """250 reviews in pages of 100, in their order."""
    forge.pull(reviews=[review(f"p{n}", "APPROVED") for n in range(250)])
    found = await all_pages(github, f"{PULL}/reviews")

    assert found == forge.resources["/repos/o/r/pulls/7/reviews"]
    assert len(forge.asked) == 3
    assert "per_page=100" in forge.asked[0].path


async def test_a_list_without_end_is_given_up(forge: Forge, github: GitHub) -> None:
    """After twenty pages: nothing that a pull request has is that long."""
    forge.page_size = 1
    forge.pull(reviews=[review("bo", "APPROVED")] * 100)

    with pytest.raises(GitHubError, match="does not end"):
        await all_pages(github, f"{PULL}/reviews")
    assert len(forge.asked) == 20


async def test_what_has_not_changed_is_not_sent_again(forge: Forge, github: GitHub) -> None:
    """304 costs no quota; the pages behind the first are remembered with it."""
    forge.page_size = 2
    forge.pull(reviews=[review(f"p{n}", "APPROVED") for n in range(3)])
    first = await all_pages(github, f"{PULL}/reviews")
    again = await all_pages(github, f"{PULL}/reviews")
    forge.resources["/repos/o/r/pulls/7/reviews"].append(review("new", "APPROVED"))
    changed = await all_pages(github, f"{PULL}/reviews")

    assert first == again
    assert len(changed) == 4
    assert [bool(asked.etag) for asked in forge.asked] == [False, False, True, True, True, True]


async def test_an_answer_is_remembered_for_its_token_alone(forge: Forge, github: GitHub) -> None:
    """What one identity may see, another one has to ask for."""
    forge.pull()
    forge.tokens = {"one"}
    await github.get(PULL, Token("one"))

    with pytest.raises(RefusedError):
        await github.get(PULL, Token("two"))
    assert [asked.etag for asked in forge.asked] == ["", ""]
    assert [asked.token for asked in forge.asked] == ["one", "two"]


def in_ten_seconds() -> str:
    return str(int(time.time()) + 11)


LIMITS: dict[str, tuple[int, Callable[[], dict[str, str]], bytes, float, float]] = {
    "403 with seconds": (403, lambda: {"Retry-After": "7"}, b"{}", 7, 7),
    "429 with seconds": (429, lambda: {"Retry-After": "7"}, b"{}", 7, 7),
    "429 with a date": (
        429, lambda: {"Retry-After": formatdate(time.time() + 999, usegmt=True)}, b"{}", 9, 999
    ),
    "quota used up": (
        403,
        lambda: {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": in_ten_seconds()},
        b"{}", 1, 11,
    ),
    "secondary limit": (403, dict, b'{"message": "You hit a secondary rate limit"}', 60, 60),
    "nonsense": (429, lambda: {"Retry-After": "soon"}, b"{}", 60, 60),
    "in the past": (
        403, lambda: {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}, b"{}", 1, 1
    ),
    "for years": (429, lambda: {"Retry-After": "99999999"}, b"{}", 3600, 3600),
}  # fmt: skip


@pytest.mark.parametrize(("status", "headers", "body", "low", "high"), LIMITS.values(), ids=LIMITS)
async def test_a_limit_says_how_long_to_pause(  # noqa: PLR0917 - a row of the table
    forge: Forge,
    github: GitHub,
    status: int,
    headers: Callable[[], dict[str, str]],
    body: bytes,
    low: float,
    high: float,
) -> None:
    """In each of the ways that GitHub has, within bounds."""
    forge.next_replies.append(Reply(status, headers(), body))
    with pytest.raises(RateLimitedError) as caught:
        await github.get(PULL, None)

    assert low <= caught.value.delay_s <= high


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
async def test_a_refusal_is_no_limit(forge: Forge, github: GitHub, status: int) -> None:
    """A wrong token, or something that is not there."""
    forge.next_replies.append(Reply(status))

    with pytest.raises(RefusedError, match=str(status)):
        await github.get(PULL, None)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(500), "answers 500"),
        (Reply(502, body=b"<html>"), "answers 502"),
        (Reply(200, body=b"<html>"), "no JSON"),
        (Reply(200, body=b'{"a": '), "no JSON"),
        (Reply(200, body=b"[" * 100_000), "no JSON"),
        (Reply(200, body=b"\xff\xfe\x00"), "no JSON"),
        (Reply(200, body=b" " * (9 << 20)), "too large"),
        (Reply(302, {"Location": "https://elsewhere.example/x"}), "elsewhere"),
        (Reply(200, {"Content-Encoding": "gzip"}, b"no gzip"), "cannot be reached"),
    ],
)
async def test_a_fault_is_an_error_of_ours(
    forge: Forge, github: GitHub, reply: Reply, words: str
) -> None:
    """Whatever comes back; the next request is made as if nothing had been."""
    forge.pull()
    forge.next_replies.append(reply)
    with pytest.raises(GitHubError, match=words):
        await github.get(PULL, None)

    assert (await github.get(PULL, None))["state"] == "open"


async def test_a_server_that_is_away_is_an_error_of_ours() -> None:
    """Nothing listens any more."""
    with serve_forge() as forge:
        url = forge.url
    github = GitHub(url)

    with pytest.raises(GitHubError, match="cannot be reached"):
        await github.get(PULL, None)
    await github.close()


async def test_45_an_answer_that_does_not_end_is_given_up(
    forge: Forge, github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it comes, all of it has to be there in time."""
    monkeypatch.setattr(rest, "_ANSWER_S", 0.2)
    forge.next_replies.append(Reply(200, body=b'{"state": "open"', never_ends=True))

    with pytest.raises(GitHubError, match="too long"):
        await github.get(PULL, None)


async def test_a_repository_that_moved_is_followed(forge: Forge, github: GitHub) -> None:
    """On the same host, a few times at most."""
    forge.pull()
    forge.next_replies.append(Reply(301, {"Location": f"{forge.url}/{PULL}"}))

    assert (await github.get("repos/old/r/pulls/7", None))["state"] == "open"
    forge.next_replies.extend([Reply(301, {"Location": f"{forge.url}/again"})] * 4)
    with pytest.raises(GitHubError, match="from place to place"):
        await github.get("repos/old/r/pulls/7", None)


async def test_44_no_token_goes_to_another_host(forge: Forge, github: GitHub) -> None:
    """Neither by a redirect nor by the link to a next page."""
    forge.pull(reviews=[])
    with serve_forge() as other:
        there = f"{other.url}/{PULL}"
        forge.next_replies.append(Reply(302, {"Location": there}))
        with pytest.raises(GitHubError):
            await github.get(PULL, Token(CANARY))
        forge.next_replies.append(Reply(200, {"Link": f'<{there}>; rel="next"'}, b"[]"))
        with pytest.raises(GitHubError):
            await all_pages(github, f"{PULL}/reviews", Token(CANARY))

    assert other.asked == []


@pytest.mark.parametrize("url", ["http://github.example.com", "ftp://127.0.0.1", "//127.0.0.1"])
def test_tokens_are_not_sent_in_the_clear(url: str) -> None:
    """Plain http only on this machine."""
    with pytest.raises(ValueError, match="https only"):
        GitHub(url)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (None, "github.com"),
        ("https://api.github.com/", "github.com"),
        ("https://ghe.example.com/api/v3", "ghe.example.com"),
        ("http://localhost:3000", "localhost:3000"),
    ],
)
async def test_the_host_that_people_see_is_known(url: str | None, host: str) -> None:
    """It is what the URL of a pull request has to begin with."""
    github = GitHub(url)
    await github.close()

    assert github.host == host
