"""As much of PostgreSQL's protocol as it takes to lose notifications and nothing else.

Source: PostgreSQL, "Frontend/Backend Protocol", 55.7: after the start-up each message of the server
is a byte for its type and a length of four bytes that counts itself and what follows.
"""

from __future__ import annotations

from typing import Final

_NOTIFICATION: Final = ord("A")
_HEAD_BYTES: Final = 5


class NotificationSieve:
    """Takes a server's bytes as they come and gives those that may pass.

    For connections without TLS: there is nothing before the first message.
    """

    def __init__(self) -> None:
        self._head = b""
        """The beginning of a message whose type or length is not known whole yet."""
        self._left = 0
        """Bytes that are still to come of the message under way."""
        self._drops = False
        """Whether those are lost."""

    def sift(self, data: bytes, *, drops: bool) -> tuple[bytes, int]:
        """What passes, and how many notifications were lost.

        Args:
            data: what came, cut anywhere.
            drops: lose notifications that begin in it.
        """
        if not drops and not self._drops and not self._head and self._left >= len(data):
            self._left -= len(data)
            return data, 0
        data = self._head + data
        self._head = b""
        kept = bytearray()
        lost = 0
        at = 0
        while at < len(data):
            if self._left == 0:
                if len(data) - at < _HEAD_BYTES:
                    self._head = data[at:]
                    break
                self._left = 1 + int.from_bytes(data[at + 1 : at + _HEAD_BYTES], "big")
                self._drops = drops and data[at] == _NOTIFICATION
                lost += self._drops
            part = data[at : at + self._left]
            if not self._drops:
                kept += part
            self._left -= len(part)
            at += len(part)
            if self._left == 0:
                self._drops = False
        return bytes(kept), lost
