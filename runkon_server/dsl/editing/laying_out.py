"""The canonical layout of a document, with the line ends it has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from runkon_server.dsl.format import format_text

if TYPE_CHECKING:
    from runkon_server.dsl.editing.document import Document

_LONE_LF: Final = re.compile(r"(?<!\r)\n")


def lay_out(document: Document) -> str | None:
    """The text laid out; None if it has errors, for then it stays as it is.

    Where every line ends in CR LF it stays so: strings that go over several lines keep what they
    say, because they have no other line ends either.
    """
    text = format_text(document.text, document.label).text
    if text is None or "\r\n" not in document.text or _LONE_LF.search(document.text):
        return text
    return _LONE_LF.sub("\r\n", text)
