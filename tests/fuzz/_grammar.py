"""Valid workflows at random, in any layout: what mutations start from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.dsl.keys import KEYS
from runkon_server.dsl.tokens import INPUT_MODIFIERS

if TYPE_CHECKING:
    from random import Random

NAMES: Final = ("a", "plan", "x-1", "_y", "gate", "script", "call-me", "required", "w" * 128)
TEXTS: Final = (
    "me", "7", "007", "a.b", '""', '"a b"', r'"\n\t\"\\"', '"{{a}} {{inputs.plan}}"', '"a\nb"',
    '"é 日本 \U0001f600"', '"x/y.md"', r'"\d"', '"//"',
)  # fmt: skip
VALUES: Final = {
    "retries": ("0", "2", '"+3"', "20"),
    "max_iterations": ("1", "3", "1000"),
    "stuck_after": ("1", "2", "5"),
    "timeout": ("5", '"90s"', '"5000ms"', '"2h"'),
    "retry_delay": ("1", '"250ms"', '"5m"'),
    "on_max_iter": ("fail", "continue"),
    "on_timeout": ("fail", "continue"),
    "on_cycle": ("fail", "warn"),
    "on_child_fail": ("halt", "continue", "skip_dependents"),
    "on_fail": ("continue", "fail", "triage", '"x/y.md"'),
    "fail_fast": ("true", "false"),
    "exclude_starter": ("true", "false"),
    "ordered": ("true", "false"),
    "trigger": ("manual", "pr", "scheduled"),
    "mode": ("min_approvals", "review_decision"),
    "if": ("a.b", '"a.b.c"', "plan.done"),
    "name": NAMES[:5],
    "workflow": NAMES[:4],
    "source": NAMES[:4],
    "threshold": ("0", "80", "100"),
    **dict.fromkeys(("max_parallel", "min_success", "approvers", "max_turns"), ("1", "2", "256")),
    "min_approvals": ("1", "3"),
}
LISTS: Final = frozenset({"with", "plugin_dirs", "targets"})
MAPS: Final = frozenset({"inputs", "env", "scope", "filter"})
GATES: Final = ("human_review", "human_approval", "pr_approval", "pr_checks", "quality_gate", "own")
GAPS: Final = (
    " ",
    " ",
    " ",
    " ",
    "\n",
    "\n  ",
    "\n\n\n",
    "\t",
    " // note\n",
    "\n// a line\n",
    "\r\n",
)
MARKS: Final = frozenset("{}[],=.")


class Grammar:
    """Makes the texts of one generator of chance."""

    def __init__(self, chance: Random) -> None:
        self._pick = chance.choice
        self._random = chance.random
        self._tokens: list[str] = []

    def text(self) -> str:
        """A whole file."""
        self._tokens = ["workflow", self._pick(NAMES), "{"]
        for _ in range(self._pick((0, 1, 2, 4, 8))):
            self._part()
        self._tokens.append("}")
        return self._laid_out()

    def _laid_out(self) -> str:
        pieces: list[str] = []
        before = "{"
        for token in self._tokens:
            glued = (before in MARKS or token in MARKS) and self._random() < 0.2
            pieces += ["" if glued else self._pick(GAPS), token]
            before = token
        return "".join(pieces) + self._pick(GAPS)

    def _part(self) -> None:
        match self._pick(("meta", "inputs", "always", *["node"] * 6)):
            case "meta":
                self._block(["meta"], "meta")
            case "inputs":
                self._inputs()
            case "always":
                self._body(["always"], None, 1)
            case _:
                self._node(3)

    def _inputs(self) -> None:
        self._tokens += ["inputs", "{"]
        for name in ("a", "plan", "x-1", "call")[: self._pick((0, 1, 2, 4))]:
            self._tokens.append(name)
            for modifier in sorted(INPUT_MODIFIERS):
                if self._random() < 0.3:
                    self._tokens.append(modifier)
                    if modifier == "default":
                        self._tokens += ["=", self._pick(("true", "FALSE", '"true"'))]
                    elif modifier == "description":
                        self._tokens += ["=", self._pick(TEXTS)]
        self._tokens.append("}")

    def _node(self, depth: int) -> None:
        name = self._pick(NAMES)
        kinds = ["call", "call", "call workflow", "parallel", "gate", "script", "foreach"]
        if depth:
            kinds += ["if", "unless", "while", "do", "do while", "always"] * 2
        match self._pick(kinds):
            case "call":
                agent = self._pick(("plan", "x-1", '"ops/scan.md"', '"fix.md"', "default", "a"))
                self._block(["call", agent], "call", may_lack=True)
            case "call workflow":
                self._block(["call", "workflow", name], "call workflow", may_lack=True)
            case "parallel":
                self._parallel()
            case "gate":
                gate_type = self._pick(GATES)
                row = f"gate {gate_type}"
                self._block(["gate", gate_type], row if row in KEYS else "gate")
            case "script" | "foreach" as keyword:
                self._block([keyword, name], keyword)
            case "if" | "unless" as keyword:
                condition = self._pick((["a", ".", "b"], ["plan"]))
                self._body([keyword, *condition], None, depth - 1)
            case "while":
                self._body(["while", "a", ".", "b"], "while", depth - 1)
            case "do while":
                self._body(["do"], "do … while", depth - 1)
                self._tokens += ["while", "plan", ".", name]
            case keyword:
                self._body([keyword], keyword, depth - 1)

    def _parallel(self) -> None:
        self._tokens += ["parallel", "{"]
        self._options("parallel")
        for _ in range(self._pick((1, 1, 2, 3))):
            self._block(["call", self._pick(("a", "plan"))], "parallel call", may_lack=True)
        self._tokens.append("}")

    def _body(self, head: list[str], construct: str | None, depth: int) -> None:
        self._tokens += [*head, "{"]
        if construct is not None:
            self._options(construct)
        for _ in range(self._pick((0, 1, 1, 2, 3))):
            self._node(depth)
        self._tokens.append("}")

    def _block(self, head: list[str], construct: str, *, may_lack: bool = False) -> None:
        self._tokens += head
        if may_lack and self._random() < 0.4:
            return
        self._tokens.append("{")
        self._options(construct)
        self._tokens.append("}")

    def _options(self, construct: str) -> None:
        for key, known in KEYS[construct].items():
            if known.required or self._random() < 0.2:
                self._option(key)

    def _option(self, key: str) -> None:
        self._tokens += [key, "="]
        if key in LISTS or (key == "options" and self._random() < 0.5):
            self._tokens.append("[")
            for _ in range(self._pick((0, 1, 2, 5))):
                self._tokens += [self._pick(TEXTS), *self._pick(([], [","]))]
            self._tokens.append("]")
        elif key in MAPS or key == "options":
            self._tokens.append("{")
            for name in ("a", "b", "if", "default")[: self._pick((0, 1, 2, 4))]:
                self._tokens += [name, "=", self._pick(TEXTS), *self._pick(([], [","]))]
            self._tokens.append("}")
        else:
            self._tokens.append(self._pick(VALUES.get(key, TEXTS)))
