"""The client used wrongly: the error names what is wrong, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from client.peers import RUN_ID, Hang, Peer, end, events, header, serve

from runkon.v1 import runs_pb2
from runkon_client import CallCancelledError, Client, RetryPolicy, SyncClient
from runkon_client.calls.call import Call
from runkon_client.channel import resolve_endpoint
from runkon_client.transport import SyncTransport
from runkon_client.values import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable

MISTAKES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "an input that is no text": (
        lambda c: c.start_run("w", inputs={"n": 5}),
        "inputs is a mapping of texts: 'n' is 5",
    ),
    "labels that are no mapping": (
        lambda c: c.start_run("w", labels=["queue"]),
        "labels is a mapping of texts, not",
    ),
    "a key that is no text": (lambda c: c.start_run("w", key=5), "key is a text, not 5"),
    "a run in place of its id": (lambda c: c.get_run(c.run(RUN_ID)), "run_id is a text, not"),
    "another thing in its place": (lambda c: c.run(5), "run_id is a text, not 5"),
    "a number for a gate": (lambda c: c.gate(5), "gate_id is a text, not 5"),
    "one selection by itself": (
        lambda c: c.gate("g").approve(selections="squash"),
        r"selections is a sequence, such as \['squash'\]",
    ),
    "feedback that is no text": (
        lambda c: c.gate("g").approve(feedback=5),
        "feedback is a text, not 5",
    ),
    "one kind by itself": (
        lambda c: c.run(RUN_ID).list_events(kinds=EventKind.GATE_WAITING),
        "kinds is a sequence, such as",
    ),
}


@pytest.mark.parametrize(("mistake", "message"), MISTAKES.values(), ids=MISTAKES)
async def test_what_no_message_can_hold_is_named(
    mistake: Callable[[Any], Any], message: str
) -> None:
    """On both stacks; gRPC's own words are `bad argument type for built-in operation`."""
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(TypeError, match=message):
            await mistake(client)
    with SyncClient("127.0.0.1:1") as sync_client, pytest.raises(TypeError, match=message):
        mistake(sync_client)


async def test_a_heartbeat_without_length_is_refused() -> None:
    """Each stream would be taken for dead before its first frame, and followed by another."""
    async with Client("127.0.0.1:1") as client:
        for follow in (client.run(RUN_ID).events, client.events, client.gates.watch):
            with pytest.raises(ValueError, match="heartbeat is 1 s to 60 s, not 0 s"):
                follow(heartbeat=timedelta())


def test_a_client_may_be_made_anywhere_and_used_in_one_loop() -> None:
    """It belongs to the loop of its first call; another one is told so."""
    client = Client("127.0.0.1:1", retry=RetryPolicy(window_s=0))

    async def close() -> None:
        client._transport.channel.get_state()
        await client.close()

    asyncio.run(close())
    with pytest.raises(RuntimeError, match="make one in each loop"):
        asyncio.run(client.get_run(RUN_ID))


async def test_a_stream_that_was_closed_has_ended() -> None:
    """Also while another task waits for it, and for events that had come with the last one."""
    peer = Peer()
    peer.plan = lambda *_: [header(), events(1, 2, 3), Hang()]
    async with serve(peer) as address, Client(address) as client, asyncio.timeout(60):
        waiting = client.run(RUN_ID).events()
        assert [(await anext(waiting)).seq for _ in range(3)] == [1, 2, 3]
        reading = asyncio.create_task(anext(waiting, None))
        await asyncio.sleep(0)
        await waiting.aclose()
        partly = client.run(RUN_ID).events()
        first = await anext(partly)
        await partly.aclose()

        assert await reading is None
        assert [event.seq async for event in waiting] == []
        assert first.seq == partly.cursor == 1
        assert [event.seq async for event in partly] == []
        assert len(peer.opened) == 2, "none was opened again"


async def test_a_closed_sync_stream_gives_nothing_more() -> None:
    """Not even what had come together with the last event."""
    peer = Peer()
    peer.plan = lambda *_: [header(), events(1, 2, 3), end(3)]

    def read(address: str) -> list[int]:
        with SyncClient(address) as client:
            seqs = []
            for event in (stream := client.run(RUN_ID).events()):
                seqs.append(event.seq)
                stream.close()
            return seqs

    async with serve(peer) as address:
        assert await asyncio.to_thread(read, address) == [1]


@dataclass(frozen=True)
class _Closing(Call[Any]):
    """Closes its client between the check for that and the call."""

    asked: list[SyncTransport] = field(default_factory=list)

    def __getattribute__(self, name: str) -> Any:
        if name == "timeout_s":
            object.__getattribute__(self, "asked")[0].close()
        return object.__getattribute__(self, name)


def test_a_client_closed_at_the_last_moment_says_so() -> None:
    """By another thread, between a call's look at that and its beginning: gRPC says ValueError."""
    transport = SyncTransport(resolve_endpoint("127.0.0.1:1"), RetryPolicy(window_s=0))
    call = _Closing("/x", runs_pb2.GetRunRequest(), lambda data: data, 1.0, [transport])

    with pytest.raises(CallCancelledError, match="the client was closed"):
        transport.perform(call)


INTERRUPTED = """
import sys
import grpc._channel
from runkon_client import SyncClient

def interrupted(state):
    raise KeyboardInterrupt

grpc._channel._run_channel_spin_thread = interrupted
try:
    with SyncClient(sys.argv[1]) as client:
        next(client.run(sys.argv[2]).events())
except KeyboardInterrupt:
    sys.exit(130)
"""


async def test_an_interrupt_while_a_stream_begins_lets_the_process_end() -> None:
    """A call is there then, and no thread that would ever end it; gRPC waits for its end."""
    async with serve(Peer()) as address:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", INTERRUPTED, address, RUN_ID
        )
        try:
            assert await asyncio.wait_for(program.wait(), 60) == 130
        finally:
            if program.returncode is None:
                program.kill()
