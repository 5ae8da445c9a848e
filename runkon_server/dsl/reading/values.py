"""The right-hand sides of options: text, lists of texts, maps of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from runkon_server.dsl import codes, limits
from runkon_server.dsl.strings import unquote
from runkon_server.dsl.tokens import (
    EOF,
    IDENT,
    INT,
    KEY_KINDS,
    KEYWORDS,
    NAME_KINDS,
    NODE_KEYWORDS,
    STRING,
)

if TYPE_CHECKING:
    from runkon_server.dsl.reading.cursor import Cursor


class Text(NamedTuple):
    """Quoted or bare text; offsets say where it stands."""

    text: str
    start: int
    end: int
    quoted: bool = False


class TextList(NamedTuple):
    """A list of texts."""

    items: tuple[Text, ...]
    start: int
    end: int


class Pair(NamedTuple):
    """`key = value`, with the offsets of the key; None stands for a value already reported."""

    key: str
    value: Value | None
    start: int
    end: int


class TextMap(NamedTuple):
    """A map, still with all that was written: duplicate keys, lists where texts belong."""

    pairs: tuple[Pair, ...]
    start: int
    end: int


Value: TypeAlias = Text | TextList | TextMap

_WORDS = KEYWORDS | {IDENT}
_VALUE_STARTS = (_WORDS - NODE_KEYWORDS) | {STRING, INT, "[", "{"}
_AFTER_JUNK = frozenset({"}", EOF}) | NODE_KEYWORDS
_AFTER_VALUE = _AFTER_JUNK | {"]", ","}
_EXTENDS_VALUE = frozenset({".", "="})
_PLAIN_KINDS = frozenset({IDENT, STRING, INT})
_PLAIN_MAX = limits.STRING_BYTES // 4


def _plain(cursor: Cursor, index: int) -> Text | None:
    """The value at a token, if it is one word, text or number about which nothing can be said.

    Most values are: they are read without the detours that telling mistakes apart takes.
    """
    tokens = cursor.tokens
    kind = tokens.kinds[index]
    if kind not in _PLAIN_KINDS or tokens.kinds[index + 1] in _EXTENDS_VALUE:
        return None
    text, start = tokens.texts[index], tokens.starts[index]
    end = start + len(text)
    if kind == IDENT:
        return Text(text, start, end)
    if kind == INT:
        is_glued = tokens.starts[index + 1] == end
        return None if is_glued else Text(text.lstrip("0") or "0", start, end)
    if len(text) > _PLAIN_MAX or "\\" in text:
        return None
    return Text(text[1:-1], start, end, quoted=True)


def read_plain_pairs(cursor: Cursor, pairs: list[Pair], *, nested: bool = False) -> None:
    """Read the pairs up to the first with a value that needs a closer look.

    Args:
        cursor: where a pair may stand.
        pairs: those read so far; gets the new ones.
        nested: inside a map, where a comma may follow each.
    """
    tokens, index = cursor.tokens, cursor.index
    kinds, texts, starts = tokens.kinds, tokens.texts, tokens.starts
    while len(pairs) < limits.ENTRIES and kinds[index] in KEY_KINDS and kinds[index + 1] == "=":
        value = _plain(cursor, index + 2)
        if value is None:
            break
        key, start = texts[index], starts[index]
        pairs.append(Pair(key, value, start, start + len(key)))
        index += 4 if nested and kinds[index + 3] == "," else 3
    cursor.go_to(index)


def read_value(cursor: Cursor, *, of: str) -> Value | None:
    """Read one value; None, after a report, if there is none.

    Args:
        cursor: stands behind the `=`, or at an element of a list.
        of: the key it belongs to, for messages.
    """
    kind = cursor.kind
    if kind == STRING:
        start, end = cursor.start, cursor.end
        text = unquote(cursor.text, start, cursor.problems, edition=cursor.edition)
        cursor.advance()
        return Text(text, start, end, quoted=True)
    if kind == INT:
        return _read_number(cursor)
    if kind == "[":
        return _read_list(cursor, of)
    if kind == "{":
        return read_map(cursor, of)
    if kind in _WORDS and not cursor.at_pair():
        return _read_word(cursor, of)
    cursor.expected(f"a value for `{of}`")
    return None


def _read_number(cursor: Cursor) -> Text | None:
    start = cursor.start
    digits, end = cursor.text, cursor.end
    cursor.advance()
    if cursor.kind == ".":
        cursor.expected("an option", hint="numbers are whole")
        _skip_dots(cursor)
        return None
    if cursor.kind in _WORDS and cursor.start == end:
        text = f"{digits}{cursor.text}"
        hint = f'text that starts with a digit stands in quotes: `"{text}"`'
        cursor.expected("an option", hint=hint)
        end = cursor.end
        cursor.advance()
        return Text(text, start, end)
    return Text(digits.lstrip("0") or "0", start, end)


def _read_word(cursor: Cursor, of: str) -> Text | None:
    kind, text, start, end = cursor.kind, cursor.text, cursor.start, cursor.end
    if kind not in NAME_KINDS:
        cursor.expected(f"a value for `{of}`", hint=f'`{text}` stands in quotes here: `"{text}"`')
        cursor.advance()
        _skip_dots(cursor)
        return None
    cursor.advance()
    if cursor.kind != ".":
        return Text(text, start, end)
    if kind != IDENT:
        hint = f'a value with a dot that starts with a keyword stands in quotes: `"{text}.…"`'
        cursor.expected("an option", hint=hint)
        _skip_dots(cursor)
        return None
    cursor.advance()
    if cursor.kind not in NAME_KINDS:
        cursor.expected("a name")
        return None
    text, end = f"{text}.{cursor.text}", cursor.end
    cursor.advance()
    if cursor.kind == ".":
        cursor.expected("an option", hint=f'with two dots it stands in quotes: `"{text}.…"`')
        _skip_dots(cursor)
        return None
    return Text(text, start, end)


def _skip_dots(cursor: Cursor) -> None:
    while cursor.kind == ".":
        cursor.advance()
        if cursor.kind in NAME_KINDS or cursor.kind == INT:
            cursor.advance()


def _read_list(cursor: Cursor, of: str) -> TextList:
    start = cursor.start
    cursor.advance()
    items: list[Text] = []
    while cursor.kind != "]":
        _read_plain_elements(cursor, items)
        if cursor.kind == "]":
            break
        if cursor.kind in {EOF, "}"} or cursor.at_pair():
            cursor.expected("]", hint=f"the list of `{of}` is not closed")
            return TextList(tuple(items), start, cursor.previous_end)
        if cursor.kind == ",":
            cursor.report(codes.STRAY_COMMA, "a comma belongs behind an element")
            cursor.advance()
            continue
        _read_element(cursor, of, items)
        cursor.count_entry(len(items), of)
    cursor.advance()
    return TextList(tuple(items), start, cursor.previous_end)


def _read_plain_elements(cursor: Cursor, items: list[Text]) -> None:
    kinds, index = cursor.tokens.kinds, cursor.index
    while len(items) < limits.ENTRIES and (item := _plain(cursor, index)) is not None:
        items.append(item)
        index += 2 if kinds[index + 1] == "," else 1
    cursor.go_to(index)


def _skip_equals(cursor: Cursor, of: str) -> None:
    while cursor.kind == "=":
        cursor.expected(f"a value for `{of}`")
        cursor.advance()


def _read_element(cursor: Cursor, of: str, items: list[Text]) -> None:
    _skip_equals(cursor, of)
    if cursor.kind in {"[", "{"}:
        cursor.report(codes.WRONG_SHAPE, f"the list of `{of}` may only contain texts")
        cursor.skip()
    else:
        index = cursor.index
        value = read_value(cursor, of=of)
        if isinstance(value, Text):
            items.append(value)
        elif cursor.index == index:
            cursor.advance()
    cursor.accept(",")


def read_map(cursor: Cursor, of: str) -> TextMap:
    """Read `{ key = value … }`, with optional commas behind the entries."""
    start = cursor.start
    cursor.advance()
    pairs: list[Pair] = []
    read_plain_pairs(cursor, pairs, nested=True)
    while cursor.kind != "}":
        if cursor.kind == EOF:
            cursor.unclosed(start, f"`{of}`")
            break
        read = read_pair if cursor.at_pair() else recover_pair
        pair = read(cursor, nested=True)
        if pair is not None:
            pairs.append(pair)
            cursor.count_entry(len(pairs), of)
            cursor.accept(",")
    else:
        cursor.advance()
    return TextMap(tuple(pairs), start, cursor.previous_end)


def read_pair(cursor: Cursor, *, nested: bool = False) -> Pair:
    """Read `key = value`; the cursor stands at the key, and `=` follows.

    Args:
        cursor: stands at the key; the next token is `=`.
        nested: inside a map, where lists and maps cannot stand.
    """
    key, start, end = cursor.text, cursor.start, cursor.end
    cursor.advance()
    cursor.advance()
    return Pair(key, _read_pair_value(cursor, key, nested=nested), start, end)


def _read_pair_value(cursor: Cursor, key: str, *, nested: bool) -> Value | None:
    _skip_equals(cursor, key)
    if nested and cursor.kind in {"[", "{"}:
        cursor.report(codes.WRONG_SHAPE, f"`{key}` must be a text here, not a list or map")
        cursor.skip()
        return None
    if _step_starts(cursor):
        cursor.expected(f"a value for `{key}`")
        return None
    return read_value(cursor, of=key)


def _step_starts(cursor: Cursor) -> bool:
    """Whether the word here is no value but a step on a line of its own.

    It is a value if what follows it can follow a value.
    """
    if cursor.kind not in NODE_KEYWORDS or not cursor.starts_line():
        return False
    after, next_but_one = cursor.peek(), cursor.peek(2)
    return not (
        after in _AFTER_VALUE
        or (after in KEY_KINDS and next_but_one == "=")
        or (after == "inputs" and next_but_one == "{")
    )


def recover_pair(cursor: Cursor, *, nested: bool = False) -> Pair | None:
    """Report that no pair starts here, and get past it; the pair, if it is plain what was meant."""
    kind, after = cursor.kind, cursor.peek()
    if kind == ",":
        cursor.report(codes.STRAY_COMMA, "no comma belongs here")
        cursor.advance()
        return None
    if after == "=" and kind in KEYWORDS | {STRING}:
        return _read_misnamed(cursor, nested=nested)
    if kind in KEY_KINDS and after in _VALUE_STARTS and cursor.same_line():
        return _read_without_equals(cursor, nested=nested)
    cursor.expected("an option", "}")
    cursor.skip_to(_AFTER_JUNK)
    return None


def _read_misnamed(cursor: Cursor, *, nested: bool) -> Pair:
    is_quoted = cursor.kind == STRING
    hint = "names stand without quotes" if is_quoted else f"`{cursor.kind}` is a keyword"
    cursor.expected("the name of an option", hint=hint)
    pair = read_pair(cursor, nested=nested)
    return pair._replace(key=pair.key[1:-1]) if is_quoted else pair


def _read_without_equals(cursor: Cursor, *, nested: bool) -> Pair:
    key, start, end = cursor.text, cursor.start, cursor.end
    cursor.advance()
    cursor.expected("=", hint="options are written `key = value`")
    value = None if cursor.at_pair() else _read_pair_value(cursor, key, nested=nested)
    return Pair(key, value, start, end)
