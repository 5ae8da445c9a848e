"""Surroundings for checks: workflows to call, providers, workers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from runkon_server.dsl.check import Provider, World
from runkon_server.dsl.checking.world import ScriptLookup
from support.workflows import accepted

if TYPE_CHECKING:
    from runkon_server.dsl.ast import Definition, Pairs


@dataclass(frozen=True, slots=True)
class FakeProvider:
    """Takes or refuses what it is told to."""

    knows_order: bool = False
    filter_example: str | None = None
    scope_remark: str | None = None
    takes_filter: bool = False

    def scope_error(self, scope: Pairs | None) -> str | None:
        return None if scope is None else "it takes none"

    def scope_remarks(self, scope: Pairs | None) -> tuple[str, ...]:
        return () if self.scope_remark is None else (self.scope_remark,)

    def filter_error(self, filter_: Pairs) -> str | None:
        return None if self.takes_filter else f"it knows no `{filter_[0][0]}`"


PROVIDERS: Final[dict[str, Provider]] = {
    "list": FakeProvider(),
    "tickets": FakeProvider(
        knows_order=True,
        filter_example='{ state = "open" }',
        scope_remark="this may be slow",
        takes_filter=True,
    ),
}


def named(contents: dict[str, str]) -> dict[str, Definition]:
    """Workflows by name, from their contents."""
    return {name: replace(accepted(text), name=name) for name, text in contents.items()}


WORKFLOWS: Final = named(
    {
        "leaf": "call build",
        "child": "inputs { name required fast boolean note default = x } call build",
        "w": "call workflow w",
        **{f"deep{depth}": f"call workflow deep{depth + 1}" for depth in range(1, 9)},
    }
)


def load(name: str) -> Definition | str:
    return WORKFLOWS.get(name, "no such file")


SCRIPTS: Final = {
    "bin/build": ScriptLookup(searched=("bin/build",), found="bin/build", mode=0o755),
    "bin/plain": ScriptLookup(searched=("bin/plain",), found="bin/plain", mode=0o644),
    "bin/locked": ScriptLookup(searched=("bin/locked",), found="bin/locked", reason="no rights"),
    "bin/": ScriptLookup(searched=("bin/",), found="bin/", mode=0o755, is_file=False),
}


def find_script(path: str) -> ScriptLookup:
    return SCRIPTS.get(path, ScriptLookup(searched=(path, f"more/{path}")))


WORLD: Final = World(
    load=load,
    providers=PROVIDERS,
    targets=("worktree", "repo"),
    actions=("build", "test"),
    gate_types=("human_review", "human_approval"),
    scripts=find_script,
    snippets=("house-style",),
    schemas={"verdict": None, "broken": "it has no fields"},
    identities=("bot",),
)
