"""What the name of an action makes a worker of the rig do: the rig's side of that agreement.

A name is a word and then flags, such as `a7_f2_y`:

* `f2` fails the attempts 0 and 1, so the third succeeds;
* `x` always fails, `b3` fails for good when the input `item` is `i3`;
* `y` reports the marker `yes`, `m3` the marker `more` in the passes 0 and 1 of its loop.

The workers' side is `runkon_client.verify.roles`; client and server share no code.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Act:
    """What an attempt comes to: a failure, or a result with markers."""

    fails: bool = False
    is_final: bool = False
    markers: frozenset[str] = frozenset()

    @property
    def outcome(self) -> str:
        """The word for it in the log of effects."""
        return "failed" if self.fails else "completed"


def act(action: str, *, attempt: int, iteration: int, item: str) -> Act:
    """What this attempt of the action comes to, in this pass of the innermost loop."""
    markers: set[str] = set()
    for flag in action.split("_")[1:]:
        number = int(flag[1:] or 0)
        match flag[0]:
            case "x":
                return Act(fails=True)
            case "f" if attempt < number:
                return Act(fails=True)
            case "b" if item == f"i{number}":
                return Act(fails=True, is_final=True)
            case "y":
                markers.add("yes")
            case "m" if iteration < number - 1:
                markers.add("more")
            case _:
                pass
    return Act(markers=frozenset(markers))
