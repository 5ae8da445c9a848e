"""Definitions, read and checked: from a caller's text or from the store, each once."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Concatenate, Final, Generic, ParamSpec, TypeVar

from runkon_server import errors
from runkon_server.core.outputs_schema import SchemaError
from runkon_server.dsl import snapshot
from runkon_server.dsl.check import World
from runkon_server.dsl.codes import Group, Severity
from runkon_server.dsl.diagnostics import has_errors, strict
from runkon_server.dsl.unsupported import refuse_unsupported
from runkon_server.dsl.validate import validate
from runkon_server.runtime.commands import PinnedDefinition
from runkon_server.runtime.schemas import read_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runkon_server.dsl.ast import Definition
    from runkon_server.dsl.diagnostics import Diagnostic
    from runkon_server.dsl.source import Source
    from runkon_server.store.loading import StoredDefinition

__all__ = [
    "CheckedSource",
    "Definitions",
    "check_source",
    "hash_of",
    "refusal_of",
    "work_on",
    "world_of",
]

LABEL: Final = "source"
"""What a source is called in places such as `source:3:7`."""
LOOP_BYTES: Final = 4 * 1024
"""Longer texts are read on a thread: these take 5 ms, and the event loop must not stand still."""
CACHE_BYTES: Final = 4 * 1024 * 1024
"""Of sources and snapshots; what is made of them takes some 20 times as much memory."""

_REFUSALS: Final[Mapping[Group, type[errors.InvalidArgumentError]]] = {
    Group.SYNTAX: errors.DslSyntaxError,
    Group.LIMIT: errors.DslLimitError,
    Group.SEMANTIC: errors.DslSemanticError,
    Group.UNSUPPORTED: errors.DslUnsupportedError,
}
"""The error by the group of the first problem, which names the whole."""

_Value = TypeVar("_Value")
_More = ParamSpec("_More")


async def work_on(
    text: str,
    work: Callable[Concatenate[str, _More], _Value],
    *more: _More.args,
    **options: _More.kwargs,
) -> _Value:
    """`work(text, ...)`: at once for a short text, on a thread for a long one."""
    if len(text) <= LOOP_BYTES:
        return work(text, *more, **options)
    return await asyncio.to_thread(work, text, *more, **options)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedSource:
    """A source with everything that is wrong with it."""

    source: Source
    diagnostics: tuple[Diagnostic, ...]
    content_hash: str
    definition: Definition | None
    """None: it could not be read."""
    snapshot: str
    output_schemas: Mapping[str, str] = field(default_factory=dict)
    snippets: Mapping[str, str] = field(default_factory=dict)

    def judged(self, *, strictly: bool) -> tuple[Diagnostic, ...]:
        """The problems; `strictly` makes errors of warnings."""
        return strict(self.diagnostics) if strictly else self.diagnostics

    def accept(self, *, strictly: bool = False) -> PinnedDefinition:
        """The definition, for use.

        Raises:
            DslSyntaxError, DslLimitError, DslSemanticError, DslUnsupportedError: it has errors;
                one violation for each.
        """
        problems = self.judged(strictly=strictly)
        if has_errors(problems):
            raise refusal_of([each for each in problems if each.severity is Severity.ERROR])
        assert self.definition is not None
        return PinnedDefinition(
            content_hash=self.content_hash,
            snapshot=self.snapshot,
            definition=self.definition,
            output_schemas=self.output_schemas,
            snippets=self.snippets,
        )


def refusal_of(problems: Sequence[Diagnostic]) -> errors.InvalidArgumentError:
    """The error that tells a caller of these problems: at least one, in the order of the source."""
    kind = _REFUSALS[problems[0].group]
    return kind(errors.Violation(_place(each), _description(each)) for each in problems)


def _place(found: Diagnostic) -> str:
    return f"{LABEL}:{found.span.line}:{found.span.column}" if found.span.line else LABEL


def _description(found: Diagnostic) -> str:
    hint = f" ({found.hint})" if found.hint else ""
    return f"{found.code}: {found.message}{hint}"


def hash_of(source: str, schemas: Mapping[str, str], snippets: Mapping[str, str]) -> str:
    """SHA-256, hexadecimal, over the source, the output schemas and the snippets."""
    content = {"source": source, "schemas": dict(schemas), "snippets": dict(snippets)}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def world_of(schemas: Mapping[str, str] | None, snippets: Mapping[str, str] | None) -> World:
    """A world with what came with a source, each None if it is not known."""
    return World(
        schemas=(
            None
            if schemas is None
            else {name: _flaw_of(name, schema) for name, schema in schemas.items()}
        ),
        snippets=snippets,
    )


def check_source(
    text: str,
    content_hash: str,
    schemas: Mapping[str, str] | None = None,
    snippets: Mapping[str, str] | None = None,
) -> CheckedSource:
    """Read and check a source. Never raises, whatever the text says.

    Args:
        text: the source.
        content_hash: over it and what came with it.
        schemas: all that it may name; None: it is not known which there are.
        snippets: likewise.
    """
    report = validate(text, LABEL, world_of(schemas, snippets))
    return CheckedSource(
        source=report.source,
        diagnostics=report.diagnostics,
        content_hash=content_hash,
        definition=report.parsed,
        snapshot="" if report.parsed is None else snapshot.dump(report.parsed),
        output_schemas=schemas or {},
        snippets=snippets or {},
    )


def _flaw_of(name: str, schema: str) -> str | None:
    """Why a text cannot be used as a schema; None: it can."""
    try:
        read_schema(name, schema)
    except SchemaError as error:
        return str(error)
    return None


class Definitions:
    """Checked definitions at hand, by content hash; what was not used for longest goes first."""

    def __init__(self) -> None:
        self._checked = _Cache[CheckedSource](CACHE_BYTES)
        self._reading: dict[str, asyncio.Task[CheckedSource]] = {}
        """Sources that are being read, by content hash: a batch may bring one 500 times."""
        self._loaded = _Cache[PinnedDefinition](CACHE_BYTES)

    async def check(
        self, source: str, schemas: Mapping[str, str], snippets: Mapping[str, str]
    ) -> CheckedSource:
        """Read and check a source with what belongs to it."""
        content_hash = hash_of(source, schemas, snippets)
        known = self._checked.get(content_hash)
        if known is not None:
            return known
        reading = self._reading.get(content_hash)
        if reading is None:
            # Copies: those of a request last no longer than the call.
            reading = asyncio.create_task(
                self._read(source, content_hash, dict(schemas), dict(snippets))
            )
            self._reading[content_hash] = reading
            reading.add_done_callback(lambda _: self._reading.pop(content_hash, None))
        # A caller that goes away must not end what others wait for.
        return await asyncio.shield(reading)

    async def _read(
        self,
        source: str,
        content_hash: str,
        schemas: Mapping[str, str],
        snippets: Mapping[str, str],
    ) -> CheckedSource:
        # Always on a thread: each is short, but the sources of a batch come all at once.
        made = await asyncio.to_thread(check_source, source, content_hash, schemas, snippets)
        texts = sum(map(len, (*schemas.values(), *snippets.values())))
        self._checked.put(content_hash, made, len(source) + len(made.snapshot) + texts)
        return made

    def known(self, content_hash: str) -> PinnedDefinition | None:
        """A stored definition that is at hand."""
        return self._loaded.get(content_hash)

    async def load(self, content_hash: str, stored: StoredDefinition) -> PinnedDefinition:
        """A definition as it is stored, with what belongs to it.

        Raises:
            DslUnsupportedError: a newer server stored it, with steps that this one does not know.
        """
        made = await work_on(stored.snapshot, _load, content_hash, stored)
        texts = sum(map(len, (*stored.output_schemas.values(), *stored.snippets.values())))
        self._loaded.put(content_hash, made, len(stored.snapshot) + texts)
        return made


def _load(document: str, content_hash: str, stored: StoredDefinition) -> PinnedDefinition:
    try:
        definition = snapshot.load(document)
    except snapshot.SnapshotError as error:
        raise errors.DslUnsupportedError([errors.Violation("definition", str(error))]) from error
    unsupported = refuse_unsupported(definition)
    if unsupported:
        raise refusal_of(unsupported)
    return PinnedDefinition(
        content_hash=content_hash,
        snapshot=document,
        definition=definition,
        output_schemas=stored.output_schemas,
        snippets=stored.snippets,
    )


class _Cache(Generic[_Value]):
    """The values used last, as many as weigh no more than the budget together."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._weight = 0
        self._values: OrderedDict[str, tuple[_Value, int]] = OrderedDict()

    def get(self, key: str) -> _Value | None:
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: str, value: _Value, weight: int) -> None:
        _, before = self._values.pop(key, (None, 0))
        self._values[key] = (value, weight)
        self._weight += weight - before
        while self._weight > self._budget:
            _, (_, dropped) = self._values.popitem(last=False)
            self._weight -= dropped
