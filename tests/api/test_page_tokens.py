"""Page tokens: they come back as they went, and nothing else does."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkon.v1 import gates_pb2, runs_pb2
from runkon_server.api.page_tokens import PageTokens, stored_key
from runkon_server.errors import PageTokenInvalidError
from support.replicas import FakeReplica
from support.rows import engine_of, ulid

if TYPE_CHECKING:
    from runkon_server.api.page_tokens import ListRequest


async def key() -> bytes:
    return b"secret"


async def opened(tokens: PageTokens, request: ListRequest, token: str) -> object:
    """The place that a request finds in a token."""
    again = type(request)()
    again.CopyFrom(request)  # type: ignore[arg-type]  # of the very same type
    again.page_token = token
    return await tokens.open(again)


async def test_a_token_gives_its_place_back_whatever_the_page_size() -> None:
    tokens = PageTokens(key)
    request = runs_pb2.ListRunsRequest(namespace="a", page_size=10)
    token = await tokens.seal(request, ["x", 7, True])
    other = runs_pb2.ListRunsRequest(namespace="a", page_size=500)

    assert await opened(tokens, request, token) == ["x", 7, True]
    assert await opened(tokens, other, token) == ["x", 7, True]


async def test_the_first_page_has_no_place() -> None:
    assert await PageTokens(key).open(runs_pb2.ListRunsRequest()) is None


async def test_no_namespace_and_the_default_one_are_the_same() -> None:
    tokens = PageTokens(key)
    token = await tokens.seal(runs_pb2.ListRunsRequest(), [1])

    assert await opened(tokens, runs_pb2.ListRunsRequest(namespace="default"), token) == [1]


@pytest.mark.parametrize(
    "other",
    [
        runs_pb2.ListRunsRequest(namespace="b"),
        runs_pb2.ListRunsRequest(namespace="a", order_by="create_time"),
        runs_pb2.ListStepsRequest(namespace="a"),
        runs_pb2.ListStepsRequest(namespace="a", run_id=ulid(1)),
        gates_pb2.ListGatesRequest(namespace="a"),
    ],
    ids=["namespace", "order", "method", "run", "service"],
)
async def test_a_token_of_another_list_is_refused(other: ListRequest) -> None:
    tokens = PageTokens(key)
    token = await tokens.seal(runs_pb2.ListRunsRequest(namespace="a"), [1])

    with pytest.raises(PageTokenInvalidError):
        await opened(tokens, other, token)


async def test_a_token_with_one_bit_changed_is_refused() -> None:
    tokens = PageTokens(key)
    request = runs_pb2.ListRunsRequest()
    data = base64.urlsafe_b64decode(await tokens.seal(request, [12345]) + "==")
    for place in range(len(data) * 8):
        forged = bytearray(data)
        forged[place // 8] ^= 1 << place % 8
        with pytest.raises(PageTokenInvalidError):
            await opened(tokens, request, base64.urlsafe_b64encode(forged).decode())


@given(garbage=st.text(min_size=1, max_size=80))
async def test_garbage_is_refused_and_not_stumbled_over(garbage: str) -> None:
    with pytest.raises(PageTokenInvalidError):
        await opened(PageTokens(key), runs_pb2.ListRunsRequest(), garbage.replace("\x00", "0"))


async def test_replicas_of_one_database_read_each_others_tokens(database: str) -> None:
    """Two replicas, each with its own proposal for the key; then one of another key."""
    request = runs_pb2.ListRunsRequest()
    async with engine_of(database) as reads:
        one = PageTokens(stored_key(FakeReplica(reads)))
        two = PageTokens(stored_key(FakeReplica(reads)))
        token = await one.seal(request, ["here"])

        assert await opened(two, request, token) == ["here"]
    with pytest.raises(PageTokenInvalidError):
        await opened(PageTokens(key), request, token)
