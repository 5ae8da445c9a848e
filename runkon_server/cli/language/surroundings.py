"""What `runkon check` knows beyond the files: neighbours, stored workflows, workers, scripts."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from runkon_server.cli.language.files import SUFFIX, UnreadableError, read_text
from runkon_server.dsl.checking.offers import Offers
from runkon_server.dsl.checking.stored import NOT_STORED, unreadable
from runkon_server.dsl.checking.world import ScriptLookup
from runkon_server.dsl.parser import parse
from runkon_server.dsl.snapshot import SnapshotError, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from runkon_server.dsl.ast import Definition

_NOT_IN_SET: Final = "no file here declares it"


class Host(Protocol):
    """What the client does for these commands, which cannot import it."""

    def definition(self, address: str, name: str) -> str | None:
        """The snapshot that a server stores under a name; None if it has no such workflow."""

    def actions(self, module: str) -> tuple[str, ...]:
        """The names of the actions of a worker's Python module; `*` stands for all others."""

    def namespace(self) -> str:
        """The namespace that a server is asked about."""

    def workers(self, address: str) -> Sequence[Worker]:
        """The workers of that namespace that are connected to a server."""


class Worker(Protocol):
    """What a worker serves."""

    @property
    def actions(self) -> tuple[str, ...]:
        """Names; `*` stands for all others."""

    @property
    def item_providers(self) -> tuple[str, ...]:
        """Names."""

    @property
    def gate_types(self) -> tuple[str, ...]:
        """Names."""

    @property
    def scripts(self) -> bool:
        """Whether it executes them."""


def offers_of(worker: Worker) -> Offers:
    """What a worker serves, for a check."""
    return Offers(
        actions=frozenset(worker.actions),
        item_providers=frozenset(worker.item_providers),
        gate_types=frozenset(worker.gate_types),
        scripts=worker.scripts,
    )


class Neighbours:
    """Finds called workflows that are not among the files to be checked.

    First in the folders of the files that were named one by one, then on a server. A set that is
    made of folders only is taken to be whole: what is nowhere then does not exist.

    Args:
        folders: where to look for `NAME.wf`.
        is_whole: whether nothing else can be meant.
        fetch: asks a server for the snapshot of a name; None: no server is asked.
    """

    def __init__(
        self,
        folders: Iterable[Path],
        *,
        is_whole: bool,
        fetch: Callable[[str], str | None] | None = None,
    ) -> None:
        self._folders = tuple(dict.fromkeys(folders))
        self._is_whole = is_whole
        self._fetch = fetch
        self._known: dict[str, Definition | str | None] = {}

    def __call__(self, name: str) -> Definition | str | None:
        """The workflow, why there is none, or None if that cannot be told."""
        if name not in self._known:
            self._known[name] = self._find(name)
        return self._known[name]

    def _find(self, name: str) -> Definition | str | None:
        for folder in self._folders:
            path = folder / f"{name}{SUFFIX}"
            if path.is_file():
                return _read(path, name)
        stored = None if self._fetch is None else self._fetch(name)
        if stored is not None:
            try:
                return load(stored)
            except SnapshotError as error:
                return unreadable(error)
        if self._fetch is not None:
            return NOT_STORED
        return _NOT_IN_SET if self._is_whole else None


def _read(path: Path, name: str) -> Definition | str | None:
    try:
        definition = parse(read_text(str(path)), str(path)).definition
    except UnreadableError as error:
        return str(error)
    if definition is None:
        return f"{path} has errors"
    return definition if definition.name == name else None


class ScriptFolders:
    """Looks for scripts on this machine.

    Args:
        roots: folders, in the order in which they are searched; links that lead out of one do not
            count.
    """

    def __init__(self, roots: Sequence[str]) -> None:
        self._roots = [Path(root) for root in roots]

    def __call__(self, path: str) -> ScriptLookup:
        """What there is at a relative path."""
        searched = tuple(str(root / path) for root in self._roots)
        for root in self._roots:
            place = root / path
            try:
                if not place.resolve(strict=True).is_relative_to(root.resolve()):
                    continue
                status = place.stat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, RuntimeError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                return ScriptLookup(searched=searched, found=str(place), reason=reason)
            return ScriptLookup(
                searched=searched,
                found=str(place),
                mode=stat.S_IMODE(status.st_mode),
                is_file=stat.S_ISREG(status.st_mode),
            )
        return ScriptLookup(searched=searched)
