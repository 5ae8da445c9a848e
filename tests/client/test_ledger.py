"""The worker's books: whatever happens, in whatever order, nothing is lost and nothing leaks."""

from __future__ import annotations

from client.peers import lease
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runkon.v1 import types_pb2, workers_pb2
from runkon_client.worker.ledger import Ledger, Verdict
from runkon_client.worker.outcomes import report_result

CONCURRENCY = 5


def ledger() -> Ledger:
    return Ledger(workers_pb2.WorkerHello(worker_id="w", actions=["a"], concurrency=CONCURRENCY))


def ack(
    token: str,
    status: workers_pb2.AckStatus.ValueType = workers_pb2.ACK_STATUS_ACCEPTED,
    code: int = 0,
) -> workers_pb2.TaskAck:
    error = types_pb2.ErrorStatus(code=code) if code else None
    return workers_pb2.TaskAck(task_id=token, token=token, status=status, error=error)


class Books(RuleBasedStateMachine):
    """A ledger beside a server that knows what it gave, got and answered."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = ledger()
        self.now = 0.0
        self.given = 0
        self.credit = 0
        self.running: set[str] = set()
        self.finished: set[str] = set()  # ended with a report
        self.settled: set[str] = set()  # acked, and the ack was read
        self.received: set[str] = set()  # reports on the present stream, not answered yet
        self.is_first_frame = False
        self.connect()

    @rule()
    def connect(self) -> None:
        """The stream breaks: credit and unanswered reports are gone with it."""
        self.ledger.open_stream()
        self.credit = 0
        self.received = set()
        self.is_first_frame = True
        self.flush()

    @rule()
    def flush(self) -> None:
        """The writer sends all there is."""
        self.now += 1
        while (frame := self.ledger.next_frame(now=self.now)) is not None:
            assert frame.HasField("hello") == self.is_first_frame
            if frame.HasField("hello"):
                assert frame.hello.tells_in_hand
                in_hand = self.running | (self.finished - self.settled)
                assert sorted(frame.hello.tokens_in_hand) == sorted(in_hand)
            self.is_first_frame = False
            self.credit += frame.credit
            for report in frame.reports:
                assert report.token not in self.received, "sent twice on one stream"
                self.received.add(report.token)

    @precondition(lambda self: self.credit > 0)
    @rule()
    def give(self) -> None:
        """The server uses a credit."""
        self.given += 1
        self.credit -= 1
        leased = lease(f"t{self.given}")
        assert self.ledger.take(leased)
        self.running.add(leased.token)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), is_reported=st.booleans())
    def end(self, data: st.DataObject, *, is_reported: bool) -> None:
        """A task ends, with a report or released."""
        token = data.draw(st.sampled_from(sorted(self.running)))
        self.running.remove(token)
        if is_reported:
            self.finished.add(token)
        self.ledger.end(token, report_result(token, token, None) if is_reported else None)

    @precondition(lambda self: self.received)
    @rule(data=st.data(), fate=st.sampled_from(["accepted", "stale", "later"]))
    def answer(self, data: st.DataObject, fate: str) -> None:
        """The server acks a report of this stream."""
        token = data.draw(st.sampled_from(sorted(self.received)))
        self.received.remove(token)
        if fate == "later":
            refused = ack(token, workers_pb2.ACK_STATUS_REFUSED, 14)
            assert self.ledger.acknowledge(refused) is Verdict.LATER
            self.ledger.resend(token)
            return
        self.settled.add(token)
        status = {
            "accepted": workers_pb2.ACK_STATUS_ACCEPTED,
            "stale": workers_pb2.ACK_STATUS_STALE,
        }[fate]
        self.ledger.acknowledge(ack(token, status))

    @invariant()
    def counts_agree(self) -> None:
        """Tasks in hand and unsettled reports are exactly those that the server would count."""
        assert self.ledger.open_count == len(self.running)
        assert self.ledger.unacked_count == len(self.finished - self.settled)

    @invariant()
    def credit_never_exceeds_capacity(self) -> None:
        """What is granted and what is in hand fit into the concurrency."""
        assert self.credit + len(self.running) <= CONCURRENCY

    def teardown(self) -> None:
        """After a flush nothing is held back: full credit, every unsettled report sent."""
        self.flush()
        assert self.credit + len(self.running) == CONCURRENCY
        assert self.received == self.finished - self.settled


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_frames_stay_below_the_limit_of_a_message() -> None:
    """Ten reports of 700 KB go out one to a frame."""
    books = ledger()
    books.open_stream()
    for number in range(10):
        token = f"t{number}"
        books.end(token, report_result(token, token, "x" * 700_000))
    sizes = []
    while (frame := books.next_frame(now=0)) is not None:
        sizes.append(frame.ByteSize())

    assert len(sizes) == 10
    assert max(sizes) < 1 << 20


def test_a_lease_that_comes_twice_is_taken_once() -> None:
    """In hand, or done and not acked: the same token is the same delivery."""
    books = ledger()
    books.open_stream()

    assert books.take(lease("t"))
    assert not books.take(lease("t"))
    books.end("t/0", report_result("t", "t/0", None))
    assert not books.take(lease("t"))


def test_an_ack_that_is_late_is_overdue() -> None:
    """Counted from the sending on this stream; a new stream begins anew."""
    books = ledger()
    books.open_stream()
    books.take(lease("t"))
    books.end("t/0", report_result("t", "t/0", None))
    books.next_frame(now=100)

    assert not books.is_overdue(now=109, limit_s=10)
    assert books.is_overdue(now=111, limit_s=10)
    books.open_stream()
    assert not books.is_overdue(now=111, limit_s=10)


def test_a_drain_gives_no_credit_and_is_said_on_every_stream() -> None:
    """Once per stream."""
    books = ledger()
    books.open_stream()
    books.drain()
    books.drain()
    first = books.next_frame(now=0)
    assert first is not None
    assert (first.HasField("drain"), first.credit) == (True, 0)
    assert books.next_frame(now=0) is None
    books.open_stream()
    second = books.next_frame(now=0)

    assert second is not None
    assert (second.HasField("drain"), second.credit) == (True, 0)


def test_a_worker_that_has_too_much_in_hand_does_not_tell() -> None:
    """Ten thousand reports without an ack are told, one more would be refused."""
    books = ledger()
    for number in range(10_000):
        books.end(f"t{number}", report_result("t", f"t{number}", None))
    hellos = []
    for _ in range(2):
        books.open_stream()
        frame = books.next_frame(now=0)
        assert frame is not None
        hellos.append((frame.hello.tells_in_hand, len(frame.hello.tokens_in_hand)))
        books.take(lease("more"))

    assert hellos == [(True, 10_000), (False, 0)]
