"""What one process of the load did and saw, one JSON object per line, written as it happens.

`{t_mono, proc, op_id, kind, op, args, result}`: `t_mono` is CLOCK_MONOTONIC, the same for all
processes of a machine; `kind` is `invoke`, then `ok`, `fail` (it certainly had no effect) or `info`
(nobody knows, or it is no answer but something seen).
"""

from __future__ import annotations

import itertools
import json
import os
import time
from typing import TYPE_CHECKING, Any, Final, Self

from runkon_client.errors import Code

if TYPE_CHECKING:
    from pathlib import Path

    from runkon_client.errors import RunkonClientError

UNSURE: Final = frozenset(
    {
        Code.UNAVAILABLE,
        Code.DEADLINE_EXCEEDED,
        Code.CANCELLED,
        Code.INTERNAL,
        Code.UNKNOWN,
        Code.DATA_LOSS,
    }
)
"""Codes that do not say whether something happened."""


def kind_of(error: RunkonClientError) -> str:
    """`fail` if the answer proves that nothing was done, else `info`."""
    return "info" if error.code in UNSURE else "fail"


class History:
    """Two files of a process: what it did, and which effects it had on the world.

    Both are opened for appending and written line by line with one system call each, so that a
    process that is killed leaves whole lines and one that is started again goes on with them.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._file = os.open(folder / f"{name}.history.jsonl", flags, 0o644)
        self._effects = os.open(folder / f"{name}.effects.jsonl", flags, 0o644)
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        os.close(self._effects)

    def begin(self, op: str, **args: object) -> Operation:
        """Write down that something is about to be tried."""
        operation = Operation(self, f"{os.getpid()}-{next(self._numbers)}", op, args)
        operation.write("invoke", None)
        return operation

    def see(self, op: str, args: dict[str, Any], result: object) -> None:
        """Write down something that was not asked for, such as an event of a stream."""
        Operation(self, f"{os.getpid()}-{next(self._numbers)}", op, args).write("info", result)

    def affect(self, **effect: object) -> None:
        """Have an effect on the world: durable when this returns."""
        self.append(self._effects, {"t_mono": time.monotonic(), "proc": self.name, **effect})
        os.fsync(self._effects)

    def write(self, record: dict[str, Any]) -> None:
        """Append a record to the history."""
        self.append(self._file, record)

    def append(self, file: int, record: dict[str, Any]) -> None:
        """Append a line with one system call: other processes' lines never get in between."""
        os.write(file, json.dumps(record, separators=(",", ":"), default=str).encode() + b"\n")


class Operation:
    """Something that was begun; whoever began it says how it ended, or it never did."""

    __slots__ = ("_args", "_history", "_id", "_op")

    def __init__(self, history: History, op_id: str, op: str, args: dict[str, Any]) -> None:
        self._history = history
        self._id = op_id
        self._op = op
        self._args = args

    def ok(self, result: object = None) -> None:
        """It happened."""
        self.write("ok", result)

    def failed(self, error: RunkonClientError, **more: object) -> None:
        """It was answered with an error."""
        told = {"code": str(error.code), "reason": error.reason, "message": error.message}
        self.write(kind_of(error), {**error.metadata, **told, **more})

    def unknown(self, why: str) -> None:
        """There was no answer."""
        self.write("info", {"code": why})

    def write(self, kind: str, result: object) -> None:
        """Append a record about it."""
        self._history.write(
            {
                "t_mono": time.monotonic(),
                "proc": self._history.name,
                "op_id": self._id,
                "kind": kind,
                "op": self._op,
                "args": self._args,
                "result": result,
            }
        )
