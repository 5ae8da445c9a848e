"""What a worker holds and what it still owes the server, over all the streams it goes through.

Pure: told what happened, it says which frame to send next. Credit is not counted up and down but
worked out for each frame from what is in hand, so none can be lost.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from runkon.v1 import workers_pb2
from runkon_client.worker.outcomes import REPORT_REFUSED, heartbeat, report_failure

if TYPE_CHECKING:
    from collections.abc import Sequence

CREDIT_MAX: Final = 1000  # open credit, by the contract
_IN_HAND_MAX: Final = 10_000  # by the contract
_FRAME_BYTES: Final = 1 << 20
_FRAME_HEARTBEATS: Final = 250  # with 4 KiB of progress each about 1 MiB

# Canonical codes inside an ack.
_INVALID_ARGUMENT: Final = 3
_DEADLINE_EXCEEDED: Final = 4
_RESOURCE_EXHAUSTED: Final = 8
_ABORTED: Final = 10
_OUT_OF_RANGE: Final = 11
_UNAVAILABLE: Final = 14


class Verdict(Enum):
    """What an ack means for its report."""

    SETTLED = auto()
    """Recorded, now or before."""
    DROPPED = auto()
    """Not wanted any more, or never: nothing more is to be done."""
    LATER = auto()
    """To be sent again in a moment: see `Ledger.resend`."""
    REPLACED = auto()
    """What it said was refused for good; a failure that says so goes out in its place."""


class Ledger:
    """The books of one worker."""

    def __init__(self, hello: workers_pb2.WorkerHello) -> None:
        self._hello = hello
        self._open: dict[str, str] = {}  # token: task id
        self._unacked: dict[str, workers_pb2.TaskReport] = {}  # by token
        self._sent_at: dict[str, float] = {}  # by token, on a monotonic clock
        self._outbox: deque[str] = deque()  # tokens of reports to send
        self._beats: dict[str, str] = {}  # token: progress, to send
        self._granted = 0  # credit that the server has not used
        self._is_hello_due = False
        self._is_draining = False
        self._is_drain_due = False

    @property
    def open_count(self) -> int:
        """Tasks in hand."""
        return len(self._open)

    @property
    def unacked_count(self) -> int:
        """Reports whose ack has not come."""
        return len(self._unacked)

    def open_stream(self) -> None:
        """A new stream: nothing is granted on it, nothing was sent on it."""
        self._is_hello_due = True
        self._is_drain_due = self._is_draining
        self._granted = 0
        self._sent_at.clear()
        self._outbox = deque(self._unacked)
        self.beat()

    def take(self, lease: workers_pb2.TaskLease) -> bool:
        """A task came; False if it is in hand, or done, under the very same token."""
        self._granted = max(0, self._granted - 1)
        if lease.token in self._open or lease.token in self._unacked:
            return False
        self._open[lease.token] = lease.task_id
        return True

    def end(self, token: str, report: workers_pb2.TaskReport | None) -> None:
        """A task is over; without a report its lease is left to run out."""
        self._open.pop(token, None)
        self._beats.pop(token, None)
        if report is not None:
            self._unacked[token] = report
            self._outbox.append(token)

    def note_progress(self, token: str, progress: str) -> None:
        """Progress to be sent with the next frame; a newer one takes the place of an older."""
        if token in self._open:
            self._beats[token] = progress

    def beat(self) -> None:
        """A heartbeat is due for every task in hand."""
        for token in self._open:
            self._beats.setdefault(token, "")

    def acknowledge(self, ack: workers_pb2.TaskAck) -> Verdict:
        """The server's answer to a report."""
        token = ack.token
        report = self._unacked.get(token)
        self._sent_at.pop(token, None)
        if report is None or ack.status in (
            workers_pb2.ACK_STATUS_ACCEPTED,
            workers_pb2.ACK_STATUS_DUPLICATE,
        ):
            self._unacked.pop(token, None)
            return Verdict.SETTLED
        if ack.status == workers_pb2.ACK_STATUS_REFUSED:
            if ack.error.code in (_UNAVAILABLE, _ABORTED, _DEADLINE_EXCEEDED):
                return Verdict.LATER
            is_about_content = ack.error.code in (
                _INVALID_ARGUMENT,
                _OUT_OF_RANGE,
                _RESOURCE_EXHAUSTED,
            )
            if is_about_content and report.failure.code != REPORT_REFUSED:
                self._unacked[token] = report_failure(
                    report.task_id,
                    token,
                    f"the report was refused: {ack.error.message}",
                    code=REPORT_REFUSED,
                    retryable=False,
                )
                self._outbox.append(token)
                return Verdict.REPLACED
        del self._unacked[token]
        return Verdict.DROPPED

    def resend(self, token: str) -> None:
        """Send a report again, unless it was settled or sent meanwhile."""
        if token in self._unacked and token not in self._sent_at and token not in self._outbox:
            self._outbox.append(token)

    def is_overdue(self, *, now: float, limit_s: float) -> bool:
        """Whether a report that was sent on this stream waits for its ack longer than that."""
        oldest = next(iter(self._sent_at.values()), now)  # in the order of sending
        return now - oldest > limit_s

    def drain(self) -> None:
        """Take no more tasks."""
        if not self._is_draining:
            self._is_draining = True
            self._is_drain_due = True

    def next_frame(self, *, now: float) -> workers_pb2.WorkRequest | None:
        """What to send now, at most about 1 MiB of it; None if there is nothing."""
        frame = workers_pb2.WorkRequest(
            reports=self._next_reports(now), heartbeats=self._next_heartbeats()
        )
        if self._is_hello_due:
            frame.hello.CopyFrom(self._hello)
            self._tell_in_hand(frame.hello)
            self._is_hello_due = False
        if self._is_drain_due:
            frame.drain.SetInParent()
            self._is_drain_due = False
        if not self._is_draining:
            credit = max(0, self._hello.concurrency - len(self._open) - self._granted)
            self._granted += credit
            frame.credit = credit
        return frame if frame.ByteSize() else None

    def _tell_in_hand(self, hello: workers_pb2.WorkerHello) -> None:
        """What else is leased to this worker never arrived, so the server need not wait for it."""
        tokens = [*self._open, *self._unacked]
        if len(tokens) <= _IN_HAND_MAX:
            hello.tells_in_hand = True
            hello.tokens_in_hand.extend(tokens)

    def _next_reports(self, now: float) -> Sequence[workers_pb2.TaskReport]:
        reports: list[workers_pb2.TaskReport] = []
        size = 0
        while self._outbox and size < _FRAME_BYTES:
            report = self._unacked.get(self._outbox[0])
            # The first report goes whatever its size; one more must not fill the message.
            if report is not None:
                if reports and size + report.ByteSize() > _FRAME_BYTES:
                    break
                size += report.ByteSize()
                reports.append(report)
                self._sent_at[report.token] = now
            self._outbox.popleft()
        return reports

    def _next_heartbeats(self) -> Sequence[workers_pb2.TaskHeartbeat]:
        if not self._beats:
            return ()
        tokens = [*self._beats][:_FRAME_HEARTBEATS]
        return [heartbeat(self._open[token], token, self._beats.pop(token)) for token in tokens]
