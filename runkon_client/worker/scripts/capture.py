"""What a script writes, kept within bounds: how it began, and above all how it ended."""

from __future__ import annotations

from collections import deque
from typing import Final

_NOTE_BYTES: Final = 64  # for the line that stands for what is left out


class Capture:
    """The first and the last bytes of a stream of any length.

    The end is the greater part: it holds the FLOW_OUTPUT block of a script and the error of a
    program. Memory is bounded by `kept_max_bytes` and one chunk.
    """

    def __init__(self, kept_max_bytes: int) -> None:
        room = max(0, kept_max_bytes - _NOTE_BYTES)
        self._head_max = room // 8
        self._tail_max = room - self._head_max
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self.total_bytes = 0

    def add(self, chunk: bytes) -> None:
        """The next bytes of the stream."""
        self.total_bytes += len(chunk)
        room = self._head_max - len(self._head)
        self._head += chunk[:room]
        rest = chunk[room:]
        if rest:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
            while len(self._tail) > 1 and self._tail_bytes - len(self._tail[0]) >= self._tail_max:
                self._tail_bytes -= len(self._tail.popleft())

    def text(self) -> str:
        """What was kept, as text: what is no UTF-8 is `?`, NULs are left out.

        Where something is missing, a line of its own says how much.
        """
        tail = b"".join(self._tail)
        left_out = self.total_bytes - len(self._head) - min(len(tail), self._tail_max)
        if not left_out:
            return _decode(bytes(self._head) + tail)
        tail = tail[len(tail) - min(len(tail), self._tail_max) :]
        return f"{_decode(bytes(self._head))}\n[{left_out} bytes left out]\n{_decode(tail)}"


def _decode(data: bytes) -> str:
    """Never longer in bytes than what it was made of: a replacement character would be."""
    text = data.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode("utf-8")
    return text.replace("\0", "")
