"""The FLOW_OUTPUT block in what an agent or a script printed: found, mended, read.

Source: engine.md §5.1 of the language's specification.
"""

from __future__ import annotations

import re
from typing import Final

from runkon_server.core.outputs_json import OutputError, read_json

START: Final = "<<<FLOW_OUTPUT>>>"
END: Final = "<<<END_FLOW_OUTPUT>>>"
_OPENING: Final = re.compile(re.escape(START) + r"\s*+(?=[{\[`])")
"""Elsewhere the delimiter is only talked about: in prose, in a shell example, in a JSON text."""
_FENCE: Final = "```"
_LANGUAGE: Final = re.compile(r"[\w+-]*")
# A string may lack its end: what would match nothing would be tried again from every quote in it.
_PIECES: Final = re.compile(r'("(?:[^"\\]|\\.)*+(?:"|\\?\Z))|,(?=\s*[}\]])', re.DOTALL)
_BAD_ESCAPE: Final = re.compile(r'\\(?!["\\/bfnrt]|u[0-9a-fA-F]{4})(.?)|(\\.)', re.DOTALL)


def find_block(text: str) -> str | None:
    """What stands between the delimiters of the last block, without a code fence around it."""
    start = -1
    for match in _OPENING.finditer(text):
        start = match.end()
    if start < 0:
        return None
    end = text.find(END, start)
    if end < 0:
        return None
    block = text[start:end].strip()
    if not (block.startswith(_FENCE) and block.endswith(_FENCE)):
        return block
    inner = block.removeprefix(_FENCE).removesuffix(_FENCE)
    return _LANGUAGE.sub("", inner, count=1)


def read_block(block: str) -> object:
    """The value of a block; commas before a closing bracket and unknown escapes are mended.

    Raises:
        OutputError: it cannot be read even so, or is beyond a limit.
    """
    try:
        return read_json(block)
    except OutputError:
        mended = _mend(block)
        if mended == block:
            raise
        return read_json(mended)


def _mend(block: str) -> str:
    return _PIECES.sub(lambda match: _mend_string(match[1]) if match[1] else "", block)


def _mend_string(string: str) -> str:
    if "\\" not in string:
        return string
    return _BAD_ESCAPE.sub(lambda match: match[2] or f"\\\\{match[1]}", string)
