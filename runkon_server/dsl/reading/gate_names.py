"""The names of the gates of one workflow."""

from __future__ import annotations


class GateNames:
    """The names taken so far, each with the offset of the first gate that has it."""

    def __init__(self) -> None:
        self._offset_of: dict[str, int] = {}
        self._next_number: dict[str, int] = {}

    def take(self, name: str, offset: int) -> int | None:
        """Take a name; if a gate has it already, the offset of that gate."""
        return None if (first := self._offset_of.setdefault(name, offset)) == offset else first

    def take_numbered(self, gate_type: str, offset: int) -> str:
        """Take `type-2`, `type-3`, …, whichever is free."""
        number = self._next_number.get(gate_type, 2)
        while (name := f"{gate_type}-{number}") in self._offset_of:
            number += 1
        self._next_number[gate_type] = number + 1
        self._offset_of[name] = offset
        return name
