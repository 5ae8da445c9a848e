"""Workflow texts for tests: short ways to write them, and hypothesis strategies that make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from hypothesis import strategies as st

from runkon_server.dsl.parser import parse
from runkon_server.dsl.strings import quote

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

    from runkon_server.dsl.ast import Definition, Node
    from runkon_server.dsl.parser import ParseResult

Tokens = list[str]

NAMES: Final = ("a", "plan", "x-1", "_y", "call-me", "gate", "script", "workflow", "required")
WORDS: Final = (*NAMES, "a.b", "7", "007")
MARKS: Final = frozenset("{}[],=.")


def short(value: object) -> str:
    """The name of a test's case, however long its text is."""
    return repr(value)[:40]


def wrap(text: str) -> str:
    """The text as the contents of a workflow `w`."""
    return f"workflow w {{ {text} }}"


def read(text: str) -> ParseResult:
    """Parse a whole file."""
    return parse(text, "w.wf")


def accepted(text: str) -> Definition:
    """The definition of a workflow with these contents, which must not have an error."""
    result = read(wrap(text))
    assert result.definition is not None, result.render()
    return result.definition


def only_node(text: str) -> Node:
    """The one node of a workflow with these contents."""
    (node,) = accepted(text).body
    return node


def codes(text: str) -> list[str]:
    """The codes of all diagnostics for a workflow with these contents."""
    return [each.code for each in read(wrap(text)).diagnostics]


def places(text: str) -> list[tuple[str, int, int]]:
    """Code, line and column of all diagnostics for a whole file."""
    return [(each.code, each.span.line, each.span.column) for each in read(text).diagnostics]


# Strategies: lists of tokens first, so that the layout can be varied by itself.

_SURROGATES: Final[tuple[Literal["Cs"]]] = ("Cs",)
names: SearchStrategy[str] = st.sampled_from(NAMES)
texts: SearchStrategy[str] = st.one_of(
    st.sampled_from(WORDS),
    st.text(
        st.characters(exclude_categories=_SURROGATES, exclude_characters="\x00"), max_size=12
    ).map(quote),
)
agents: SearchStrategy[str] = st.sampled_from(
    ["plan", "x-1", '"ops/scan.md"', '"fix.md"', "default"]
)
conditions: SearchStrategy[Tokens] = st.tuples(names, names).map(
    lambda pair: [pair[0], ".", pair[1]]
)


def _pair(key: str, value: SearchStrategy[str]) -> SearchStrategy[Tokens]:
    return value.map(lambda text: [key, "=", text])


def _lists() -> SearchStrategy[Tokens]:
    commas = st.sampled_from(["", ","])
    items = st.lists(st.tuples(texts, commas), max_size=3)
    return items.map(
        lambda found: ["[", *(token for item in found for token in item if token), "]"]
    )


def _maps() -> SearchStrategy[Tokens]:
    keys = st.sampled_from(["a", "b", "if", "default", "x-1"])
    entries = st.lists(st.tuples(keys, texts, st.sampled_from(["", ","])), max_size=3)

    def join(found: list[tuple[str, str, str]]) -> Tokens:
        pairs = [[key, "=", text, comma] for key, text, comma in found]
        return ["{", *(token for pair in pairs for token in pair if token), "}"]

    return entries.map(join)


_numbers = st.integers(0, 20).map(str)
_counts = st.integers(1, 20).map(str)
_durations = st.sampled_from(["5", '"90s"', '"10m"', '"+2h"', '"5000ms"'])
_policies = st.sampled_from(["fail", "continue"])
_flags = st.sampled_from(["true", "false"])
_on_fail = st.sampled_from(["continue", "triage", '"x/y.md"'])


def _long(key: str, value: SearchStrategy[Tokens]) -> SearchStrategy[Tokens]:
    return value.map(lambda tokens: [key, "=", *tokens])


_RETRIES = {
    "retries": _pair("retries", _numbers),
    "retry_delay": _pair("retry_delay", st.sampled_from(["5", '"5s"', '"1m"'])),
}
_CALL = _RETRIES | {
    "on_fail": _pair("on_fail", _on_fail),
    "as": _pair("as", texts),
    "output": _pair("output", texts),
    "with": _long("with", _lists()),
    "plugin_dirs": _long("plugin_dirs", _lists()),
    "timeout": _pair("timeout", _durations),
    "max_turns": _pair("max_turns", _numbers),
}
_CALL_WORKFLOW = {key: _CALL[key] for key in ("retries", "retry_delay", "on_fail", "as")} | {
    "inputs": st.one_of(_long("inputs", _maps()), _maps().map(lambda found: ["inputs", *found])),
}
_BRANCH = {key: _CALL[key] for key in ("retries", "retry_delay", "output", "with")} | {
    "if": _pair("if", st.sampled_from(["a.b", '"a.b.c"'])),
}
_PARALLEL = {
    "fail_fast": _pair("fail_fast", _flags),
    "min_success": _pair("min_success", _counts),
    "output": _CALL["output"],
    "with": _CALL["with"],
    "name": _pair("name", names),
}
_GATE = {
    "prompt": _pair("prompt", texts),
    "timeout": _pair("timeout", _durations),
    "on_timeout": _pair("on_timeout", _policies),
    "as": _CALL["as"],
    "options": st.one_of(
        _long("options", _lists()), _long("options", _maps()), _pair("options", st.just("a.b"))
    ),
    "name": _pair("name", names),
    "approvers": _pair("approvers", _counts),
    "exclude_starter": _pair("exclude_starter", _flags),
}
_OPEN_GATE = _GATE | {"min_approvals": _pair("min_approvals", _counts)}
_SCRIPT = _CALL_WORKFLOW | {
    "env": _long("env", _maps()),
    "timeout": _pair("timeout", _durations),
}
del _SCRIPT["inputs"]
_FOREACH = {
    "scope": _long("scope", _maps()),
    "filter": _long("filter", _maps()),
    "inputs": _CALL_WORKFLOW["inputs"],
    "ordered": _pair("ordered", _flags),
    "on_cycle": _pair("on_cycle", st.sampled_from(["fail", "warn"])),
    "on_child_fail": _pair(
        "on_child_fail", st.sampled_from(["halt", "continue", "skip_dependents"])
    ),
}
_LOOP = {
    "stuck_after": _pair("stuck_after", _counts),
    "on_max_iter": _pair("on_max_iter", _policies),
}


@st.composite
def _options(draw: DrawFn, table: dict[str, SearchStrategy[Tokens]], *first: Tokens) -> Tokens:
    chosen = draw(st.lists(st.sampled_from(sorted(table)), unique=True, max_size=4))
    pairs = [*first, *(draw(table[key]) for key in chosen)]
    return [token for pair in draw(st.permutations(pairs)) for token in pair]


@st.composite
def _leaves(draw: DrawFn) -> Tokens:
    kind = draw(st.sampled_from(["call", "child", "parallel", "gate", "quality", "script", "each"]))
    name = draw(names)
    match kind:
        case "call":
            agent = draw(agents)
            block = draw(
                st.one_of(st.just([]), _options(_CALL).map(lambda found: ["{", *found, "}"]))
            )
            return ["call", agent, *block]
        case "child":
            return ["call", "workflow", name, "{", *draw(_options(_CALL_WORKFLOW)), "}"]
        case "parallel":
            branch = st.tuples(agents, _options(_BRANCH)).map(
                lambda found: ["call", found[0], "{", *found[1], "}"]
            )
            calls = draw(st.lists(branch, min_size=1, max_size=3))
            options = draw(_options(_PARALLEL))
            return ["parallel", "{", *options, *(token for call in calls for token in call), "}"]
        case "gate":
            gate_type = draw(st.sampled_from(["human_review", "human_approval", "deploy"]))
            table = _OPEN_GATE if gate_type == "deploy" else _GATE
            return ["gate", gate_type, "{", *draw(_options(table)), "}"]
        case "quality":
            source, threshold = ["source", "=", draw(texts)], ["threshold", "=", draw(_numbers)]
            policy = {"on_fail": _pair("on_fail", _policies)}
            options = draw(_options(policy, source, threshold))
            return ["gate", "quality_gate", "{", *options, "}"]
        case "script":
            options = draw(_options(_SCRIPT, ["run", "=", draw(texts)]))
            return ["script", name, "{", *options, "}"]
        case _:
            first = (
                ["over", "=", draw(texts)],
                ["max_parallel", "=", draw(_counts)],
                ["workflow", "=", name],
            )
            return ["foreach", name, "{", *draw(_options(_FOREACH, *first)), "}"]


@st.composite
def _blocks(draw: DrawFn, children: SearchStrategy[Tokens]) -> Tokens:
    body = [token for node in draw(st.lists(children, max_size=3)) for token in node]
    condition = draw(conditions)
    limit = ["max_iterations", "=", draw(_counts)]
    match draw(st.sampled_from(["if", "unless", "while", "do", "do while", "always"])):
        case "if" | "unless" as word:
            return [
                word,
                *draw(st.one_of(st.just(condition), names.map(lambda n: [n]))),
                "{",
                *body,
                "}",
            ]
        case "while":
            return ["while", *condition, "{", *draw(_options(_LOOP, limit)), *body, "}"]
        case "do":
            options = draw(_options({key: _CALL[key] for key in ("output", "with")}))
            return ["do", "{", *options, *body, "}"]
        case "do while":
            options = draw(_options(_LOOP, limit))
            return ["do", "{", *options, *body, "}", "while", *condition]
        case _:
            return ["always", "{", *body, "}"]


nodes: SearchStrategy[Tokens] = st.recursive(_leaves(), _blocks, max_leaves=6)

_META = {
    "title": _pair("title", texts),
    "description": _pair("description", texts),
    "trigger": _pair("trigger", st.sampled_from(["manual", "pr", "scheduled"])),
    "targets": _long("targets", _lists()),
    "group": _pair("group", texts),
}


@st.composite
def _inputs(draw: DrawFn) -> Tokens:
    tokens: Tokens = []
    for name in draw(st.lists(st.sampled_from(["a", "plan", "call", "x-1"]), max_size=4)):
        modifiers = draw(
            st.sampled_from(
                [
                    [],
                    ["required"],
                    ["boolean"],
                    ["boolean", "default", "=", "true"],
                    ["default", "=", '""'],
                ]
            )
        )
        tokens += [name, *modifiers]
        if draw(st.booleans()):
            tokens += ["description", "=", draw(texts)]
    return ["inputs", "{", *tokens, "}"]


@st.composite
def workflow_tokens(draw: DrawFn) -> Tokens:
    """The tokens of a whole valid file."""
    meta = _options(_META).map(lambda found: ["meta", "{", *found, "}"])
    always = st.lists(nodes, max_size=2).map(
        lambda found: ["always", "{", *(token for node in found for token in node), "}"]
    )
    parts = draw(st.lists(st.one_of(nodes, nodes, nodes, meta, _inputs(), always), max_size=6))
    tokens = [token for part in parts for token in part]
    return ["workflow", draw(names), "{", *tokens, "}"]


@st.composite
def sources(draw: DrawFn) -> str:
    """A whole valid file in any layout, with comments between the tokens."""
    tokens = draw(workflow_tokens())
    gaps = st.sampled_from([" ", "\n", "\n\n\n", "\t", " // note\n", "\n// a line\n  ", "\r\n", ""])
    text = ""
    for before, after in zip(["{", *tokens], tokens, strict=False):
        gap = draw(gaps)
        text += gap if gap or before in MARKS or after in MARKS else " "
        text += after
    return text + draw(gaps)
