"""Lines and columns of the protocol: encodings, astral characters, tabs, every kind of line end."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkon_server.dsl.editing.places import Encoding, Place, Places

TEXT = "a\t🚀ß\r\n\r\n🚀🚀x\rlast\n"


@pytest.mark.parametrize(
    ("encoding", "offset", "place"),
    [
        (Encoding.UTF16, 0, Place(0, 0)),
        (Encoding.UTF16, 2, Place(0, 2)),
        (Encoding.UTF16, 3, Place(0, 4)),
        (Encoding.UTF16, 4, Place(0, 5)),
        (Encoding.UTF16, 5, Place(0, 5)),
        (Encoding.UTF16, 6, Place(1, 0)),
        (Encoding.UTF16, 8, Place(2, 0)),
        (Encoding.UTF16, 10, Place(2, 4)),
        (Encoding.UTF16, 12, Place(3, 0)),
        (Encoding.UTF16, 17, Place(4, 0)),
        (Encoding.UTF16, 99, Place(4, 0)),
        (Encoding.UTF8, 3, Place(0, 6)),
        (Encoding.UTF8, 4, Place(0, 8)),
        (Encoding.UTF32, 4, Place(0, 4)),
        (Encoding.UTF32, 10, Place(2, 2)),
    ],
)
def test_an_offset_has_a_place(encoding: Encoding, offset: int, place: Place) -> None:
    """Between CR and LF it is the end of the line; beyond the text its end."""
    assert Places(TEXT, encoding).place(offset) == place


@pytest.mark.parametrize(
    ("line", "character", "offset"),
    [
        (0, 3, 2),
        (0, 4, 3),
        (0, 99, 4),
        (1, 5, 6),
        (2, 1, 8),
        (2, 2, 9),
        (-1, 0, 0),
        (99, 0, 17),
        (0, -1, 0),
    ],
)
def test_a_place_has_an_offset(line: int, character: int, offset: int) -> None:
    """Half a character is its start; beyond a line its end, beyond the text that."""
    assert Places(TEXT).offset(line, character) == offset


@given(
    text=st.text(st.sampled_from("ab🚀ß\t\r\n")),
    encoding=st.sampled_from(Encoding),
)
def test_places_and_offsets_are_each_others_inverse(text: str, encoding: Encoding) -> None:
    """For every offset but those between CR and LF, and with the lines the protocol sees."""
    places = Places(text, encoding)

    for offset in range(len(text) + 1):
        if text[offset - 1 : offset + 1] != "\r\n":
            assert places.offset(*places.place(offset)) == offset
    assert places.end.line == len(re.findall(r"\r\n|\n|\r", text))
