"""What the name of an action says it does: the rig invents names, workers act on them.

A name is a word and then flags, such as `a7_f2_y`:

* `f2` fails the attempts 0 and 1, so the third succeeds;
* `x` always fails, `b3` fails for good when the input `item` is `i3`;
* `y` reports the marker `yes`, `m3` the marker `more` in the passes 0 and 1 of its loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Act:
    """What an attempt comes to: a failure, or a result with markers."""

    fails: bool = False
    is_final: bool = False
    """No further attempt would help."""
    markers: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """A word for the log of effects."""
        return "failed" if self.fails else "completed"


def act(action: str, *, attempt: int, iteration: int, inputs: Mapping[str, str]) -> Act:
    """What this attempt of the action comes to.

    Args:
        action: its name.
        attempt: attempts before this one.
        iteration: pass of the innermost loop, 0 outside of loops.
        inputs: the variables of the task.
    """
    markers: list[str] = []
    for flag in action.split("_")[1:]:
        number = int(flag[1:] or 0)
        match flag[0]:
            case "x":
                return Act(fails=True)
            case "f" if attempt < number:
                return Act(fails=True)
            case "b" if inputs.get("item") == f"i{number}":
                return Act(fails=True, is_final=True)
            case "y":
                markers.append("yes")
            case "m" if iteration < number - 1:
                markers.append("more")
            case _:
                pass
    return Act(markers=tuple(markers))
