"""Write docs/reference/errors.md from the table of errors (`python -m tools.error_reference`).

With `--check` nothing is written; the exit code is 1 when the file is stale.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final

from grpc import StatusCode

from runkon_server import errors
from runkon_server.api.status import CODES, DOMAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

PROTOS: Final = Path(__file__).resolve().parents[1] / "protos" / "runkon" / "v1"
TARGET: Final = Path(__file__).resolve().parents[1] / "docs" / "reference" / "errors.md"

ADVICE: Final = {
    StatusCode.INVALID_ARGUMENT: ("`BadRequest`", "Change the request; a retry fails again."),
    StatusCode.NOT_FOUND: ("`ResourceInfo`", "Change the request; a retry fails again."),
    StatusCode.ALREADY_EXISTS: ("`ResourceInfo`", "Change the request; a retry fails again."),
    StatusCode.UNAUTHENTICATED: ("", "Get new credentials."),
    StatusCode.PERMISSION_DENIED: ("", "Ask somebody who may."),
    StatusCode.FAILED_PRECONDITION: (
        "`PreconditionFailure`",
        "Look at the object again; retry only after it has changed.",
    ),
    StatusCode.OUT_OF_RANGE: ("", "Begin at a cursor that the metadata allows."),
    StatusCode.ABORTED: ("`RetryInfo`", "Read again, then repeat the whole change."),
    StatusCode.RESOURCE_EXHAUSTED: (
        "`QuotaFailure`, `RetryInfo`",
        "Wait as long as `RetryInfo` says, then retry.",
    ),
    StatusCode.UNAVAILABLE: (
        "`RetryInfo`",
        "Repeat the same call, with the same `request_id`, on any replica.",
    ),
}
"""What every error of a code carries besides `ErrorInfo`, and what a caller does about it."""

HEAD: Final = f"""\
# Errors

<!-- Made by `python -m tools.error_reference` from runkon_server/errors.py,
     runkon_server/api/status.py and protos/; a test fails when it is stale. -->

A call that fails has a gRPC code, a message that is safe to show to anybody, and details in
`google.rpc.Status`. `google.rpc.ErrorInfo` is always among them: its domain is `{DOMAIN}`, its
`reason` is one of those below and never changes its meaning, and its metadata has the changing
parts of the message by name. `RequestInfo` names the call as the server's logs do. Branch on the
reason, or on the code where one reaction fits all of its reasons; never on the message.

All details together fit the 8 KiB of metadata that clients take. Where a request has more
violations than that, the metadata `violations_left_out` counts those that are not shown.

"""

TAIL: Final = """
## Codes without a reason of ours

| Code | When | What to do |
| --- | --- | --- |
| `DEADLINE_EXCEEDED` | The call's deadline is over, or that which the server gives to calls \
without one: 30 s, for long polls 60 s. Whether it happened is unknown. | Repeat the same call, \
with the same `request_id`. |
| `CANCELLED` | The caller went away. | |
| `RESOURCE_EXHAUSTED` without details | A message or its metadata is too large. | Ask for less, \
or send less. |
| `UNIMPLEMENTED` | The server has no such method. | Use a server that has. |
| `INTERNAL` | A bug of the server. The message holds a reference, and nothing else is told; the \
server's log has the rest under it. | Report it. |
| `UNKNOWN` | Never sent by the server. | |
"""


METHODS: Final = """
## By method

What a call may fail with beyond a bad field, a missing right, an exhausted quota and a server that
is away, which hold for all of them. Made from the comments in the `.proto` files.

| Method | Reasons |
| --- | --- |
"""
_METHOD: Final = re.compile(r"((?:^ *//.*\n)+) *rpc (\w+)\(", re.MULTILINE)


def render() -> str:
    """The whole document."""
    return HEAD + "\n".join(_sections()) + METHODS + "\n".join(_methods()) + "\n" + TAIL


def _methods() -> Iterator[str]:
    for method, reasons in reasons_by_method().items():
        if reasons:
            yield f"| {method} | {', '.join(f'`{reason}`' for reason in reasons)} |"


def reasons_by_method() -> dict[str, list[str]]:
    """The reasons that the contract names for each RPC, codes without a reason left out."""
    known = {kind.reason for kind in CODES} - {code.name for code in StatusCode}
    found: dict[str, list[str]] = {}
    for path in sorted(PROTOS.glob("*.proto")):
        for comment, method in _METHOD.findall(path.read_text(encoding="utf-8")):
            named = dict.fromkeys(re.findall(r"[A-Z_]{3,}", comment))
            found[method] = [word for word in named if word in known]
    return found


def _sections() -> Iterator[str]:
    for code in StatusCode:
        kinds = sorted((kind for kind in CODES if CODES[kind] is code), key=lambda k: k.reason)
        if kinds:
            yield "\n".join([*_intro(code), *(_row(kind) for kind in kinds), ""])


def _intro(code: StatusCode) -> Iterator[str]:
    details, advice = ADVICE[code]
    carries = f"Carries {details} as well. " if details else ""
    yield f"## {code.name}"
    yield ""
    yield f"{carries}{advice}"
    yield ""
    yield "| Reason | When | Metadata |"
    yield "| --- | --- | --- |"


def _row(kind: type[errors.RunkonError]) -> str:
    when = " ".join((inspect.getdoc(kind) or "").split())
    names = ", ".join(f"`{name}`" for name in metadata_of(kind))
    return f"| `{kind.reason}` | {when} | {names} |"


def metadata_of(kind: type[errors.RunkonError]) -> list[str]:
    """The keys of an error's metadata: what its constructors hand on by name, down to the base."""
    names: list[str] = []
    for each in kind.__mro__:
        if each is errors.RunkonError:
            break
        if "__init__" in vars(each):
            source = textwrap.dedent(inspect.getsource(each.__init__))  # type: ignore[misc]  # as it is written
            names += [name for name in _handed_on(ast.parse(source)) if name not in names]
    return sorted(names)


def _handed_on(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__":
            yield from (keyword.arg for keyword in node.keywords if keyword.arg is not None)


def main() -> int:
    """Write the document, or with --check only compare; 1 when it is stale."""
    parser = argparse.ArgumentParser(prog="tools.error_reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when stale")
    wanted = render()
    if not parser.parse_args().check:
        TARGET.write_text(wanted, encoding="utf-8")
        return 0
    if TARGET.exists() and TARGET.read_text(encoding="utf-8") == wanted:
        return 0
    print(f"{TARGET.name} is stale, run `python -m tools.error_reference`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
