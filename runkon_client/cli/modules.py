"""Finding the actions of a Python module that was named on the command line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from runkon_client.worker.actions import Actions

if TYPE_CHECKING:
    from types import ModuleType, TracebackType

ATTRIBUTE: Final = "actions"
_IMPORTING: Final = ("<frozen importlib", importlib.__file__)


def load_actions(module: str) -> Actions:
    """The actions of a module: its attribute `actions`.

    Args:
        module: a path to a `.py` file, or a dotted name as in `import`, looked for in the current
            folder as well.

    Raises:
        click.UsageError: there is no such module, or it has no actions. What the module itself
            raises while it is imported passes through, with its traceback.
    """
    loaded = _import_file(Path(module)) if module.endswith(".py") else _import_name(module)
    found = getattr(loaded, ATTRIBUTE, None)
    if not isinstance(found, Actions):
        raise click.UsageError(f"{module} has no `{ATTRIBUTE} = Actions()`")
    if found.is_empty:
        raise click.UsageError(f"the `{ATTRIBUTE}` of {module} are empty")
    return found


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise click.UsageError(f"there is no file {path}")
    # As if the file were run as a script: modules beside it can be imported.
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _import_name(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as reason:
        if reason.name is None or not f"{name}.".startswith(f"{reason.name}."):
            raise  # the module is there; what it imports is not
        raise click.UsageError(f"there is no module {name}; a file is given as its path") from None


def told_from_inside(error: Exception) -> str:
    """The traceback of what `load_actions` let pass, from where the module's own code begins."""
    return "".join(traceback.format_exception(error.with_traceback(_inside(error.__traceback__))))


def _inside(frame: TracebackType | None) -> TracebackType | None:
    """The traceback behind the first frames of the import; None if no code of the module ran."""
    is_importing = False
    while frame is not None:
        was_importing = is_importing
        is_importing = frame.tb_frame.f_code.co_filename.startswith(_IMPORTING)
        if was_importing and not is_importing:
            return frame
        frame = frame.tb_next
    return None
