"""Text to tokens, in one pass of one regular expression.

A character that cannot be used is reported and, where its meaning is plain, replaced (`:` counts
as `=`, `'x'` as `"x"`, a `#` comment as a comment), so that one slip is one problem.
"""

from __future__ import annotations

import re
from string import ascii_letters, digits
from typing import TYPE_CHECKING, Final

from runkon_server.dsl import codes, limits
from runkon_server.dsl.source import NOWHERE
from runkon_server.dsl.tokens import EOF, IDENT, INT, KEYWORDS, STRING, Comment, Tokens

if TYPE_CHECKING:
    from runkon_server.dsl.problems import Problems
    from runkon_server.dsl.source import Source

# Unicode White_Space. `\s` would also take U+001C to U+001F, which the language does not.
_SPACE: Final = r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
# Every position matches some alternative, and the quantifiers give nothing back: no text makes the
# engine search or backtrack. The first six alternatives are what can be used.
_TOKEN: Final = re.compile(
    _SPACE
    + r"""*+(
      [A-Za-z_][A-Za-z0-9_-]*+
    | [{}\[\],=.]
    | "[^"\\]*+(?:\\.[^"\\]*+)*+"
    | [0-9]++
    | //[^\n]*+
    | \Z
    | .
    )""",
    re.VERBOSE | re.DOTALL,
)
_FIXED: Final = {word: word for word in (*KEYWORDS, *"{}[],=.")}
_WORD_STARTS: Final = frozenset(f"{ascii_letters}_")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_U32_DIGITS: Final = 10
_HARMLESS_LENGTH: Final = {
    IDENT: limits.NAME_LENGTH,
    INT: _U32_DIGITS - 1,
    STRING: limits.NAME_LENGTH,
}
"""Up to which length a token cannot break a limit, so that its like need not be looked at again."""
_BOM: Final = "\ufeff"


def tokenise(source: Source, problems: Problems) -> Tokens:
    """The tokens of a text; problems go to `problems`.

    Raises:
        StopReading: the text is too large, cannot be stored, or has too many problems.
    """
    _refuse_unreadable(source, problems)
    tokens = Tokens(source)
    position = 1 if source.text.startswith(_BOM) else 0
    while position <= len(source.text):
        position = _run(tokens, position, problems)
    return tokens


def _refuse_unreadable(source: Source, problems: Problems) -> None:
    text = source.text
    size = len(text)
    if size <= limits.SOURCE_BYTES and not text.isascii():
        size = len(text.encode("utf-8", "surrogatepass"))
    if size > limits.SOURCE_BYTES:
        limit_kib = limits.SOURCE_BYTES // 1024
        problems.stop(
            codes.SOURCE_TOO_LARGE,
            NOWHERE._replace(line=1, column=1),
            f"the source is larger than {limit_kib} KiB",
            hint="move parts of it into workflows of their own and use `call workflow`",
        )
    found = _UNSTORABLE.search(text)
    if found is not None:
        problems.stop(
            codes.UNSTORABLE_CHARACTER,
            source.span(found.start(), found.end()),
            f"the text contains U+{ord(found[0]):04X}, which cannot be stored",
            hint="is this a UTF-8 text file?",
        )


def _run(tokens: Tokens, position: int, problems: Problems) -> int:
    """Read on until a character needs a closer look; returns where to go on after it."""
    kinds, texts, starts = tokens.kinds, tokens.texts, tokens.starts
    text = tokens.source.text
    known = dict(_FIXED)  # what was looked at once and can be taken as it is
    for match in _TOKEN.finditer(text, position):
        word = match[1]
        kind = known.get(word)
        if kind is None:
            start = match.start(1)
            if word.startswith("//"):
                tokens.comments.append(Comment(start, word.rstrip("\r")))
                continue
            if not word:
                break
            kind = _kind(word, start, problems)
            if kind is None:
                return _replace(tokens, start, problems)
            if len(word) <= _HARMLESS_LENGTH[kind]:
                known[word] = kind
        kinds.append(kind)
        texts.append(word)
        starts.append(match.start(1))
    kinds.append(EOF)
    texts.append("")
    starts.append(len(text))
    return len(text) + 1


def _kind(word: str, start: int, problems: Problems) -> str | None:
    """The kind of a token that is neither punctuation nor a keyword; None if it is no token."""
    first = word[0]
    if first in _WORD_STARTS:
        if len(word) > limits.NAME_LENGTH:
            _report_long_name(start, word, problems)
        return IDENT
    if first in digits:
        if len(word) >= _U32_DIGITS:
            _check_number(start, word, problems)
        return INT
    return STRING if first == '"' and len(word) > 1 else None


def _report_long_name(start: int, word: str, problems: Problems) -> None:
    problems.report(
        codes.NAME_TOO_LONG,
        start,
        start + len(word),
        f"this name has {len(word)} characters; {limits.NAME_LENGTH} are allowed",
    )


def _check_number(start: int, number: str, problems: Problems) -> None:
    significant = number.lstrip("0")
    if len(significant) > _U32_DIGITS or int(significant or "0") > limits.U32_MAX:
        problems.report(
            codes.NUMBER_TOO_LARGE,
            start,
            start + len(number),
            f"numbers go up to {limits.U32_MAX}",
        )


def _report_unterminated(tokens: Tokens, start: int, problems: Problems) -> None:
    """One missing quote turns strings and text around it inside out, so blame the likeliest.

    That is the first string with a line break in it; nothing after it is worth a complaint.
    """
    suspect = start
    for index, kind in enumerate(tokens.kinds):
        if kind == STRING and "\n" in tokens.texts[index]:
            suspect = tokens.starts[index]
            break
    hint = 'a string ends at the next `"`; write `\\"` for a quote inside it'
    if suspect != start:
        line, column = tokens.source.position(suspect)
        hint = f"perhaps the string that starts at line {line}, column {column} lacks its quote"
    problems.report(
        codes.UNTERMINATED_STRING, start, start + 1, "this string is never closed", hint=hint
    )
    problems.ignore_from(suspect)


_COMMENT_HINT: Final = "comments start with `//`"
_HINTS: Final = {
    "#": _COMMENT_HINT,
    ";": "nothing separates steps and options but blanks",
    "'": 'strings stand in double quotes: `"`',
    ":": "options are written `key = value`",
    "(": "there are no expressions; conditions are written `step.marker`",
    ")": "there are no expressions; conditions are written `step.marker`",
    "!": "use `unless` for the opposite of `if`",
}
# ' and the typographic quotes of several languages, on one line and without a `"` inside.
_FOREIGN_QUOTES: Final = re.compile(
    "'[^'\"\\\\\n]*'"
    '|[\u00ab\u00bb\u2018-\u201f][^\u00ab\u00bb\u2018-\u201f"\n]*[\u00ab\u00bb\u2018-\u201f]'
)
_SYMBOLS: Final = re.compile(r"[!$%&()*+;<>?@\\^`|~]+")
_BAD_WORD: Final = re.compile(r"[\w-]+")
_NEGATIVE: Final = re.compile(r"-[0-9]+")
_BLOCK_COMMENT: Final = re.compile(r"/\*[^*\n]*\*/")


def _replace(tokens: Tokens, start: int, problems: Problems) -> int:
    """Report what is no token; returns where to go on, perhaps with a token in its place."""
    text = tokens.source.text
    char = text[start]
    if char == '"':
        _report_unterminated(tokens, start, problems)
        _put(tokens, STRING, text[start:], start)
        return len(text)
    end, hint, kind, replacement = start + 1, _HINTS.get(char), None, ""
    if char == "#" or text.startswith(("--", "/*"), start):
        hint = _COMMENT_HINT
        block = _BLOCK_COMMENT.match(text, start)
        end = block.end() if block else _line_end(text, start)
    elif quoted := _FOREIGN_QUOTES.match(text, start):
        hint, kind, end = _HINTS["'"], STRING, quoted.end()
        replacement = quoted[0]
    elif negative := _NEGATIVE.match(text, start):
        hint, kind, end = "numbers have no sign", INT, negative.end()
        replacement = negative[0]
    elif char == ":":
        kind = replacement = "="
    elif word := _BAD_WORD.match(text, start):
        hint, kind, end = "names are made of A-Z a-z 0-9 _ and -", IDENT, word.end()
        replacement = word[0]
    elif char == "/":
        hint = _COMMENT_HINT
    elif symbols := _SYMBOLS.match(text, start):
        end = symbols.end()
    message = f"unexpected character {_shown(char)}"
    problems.report(codes.UNEXPECTED_CHARACTER, start, start + 1, message, hint=hint)
    if kind is None:
        tokens.tainted.add(len(tokens.kinds))
    else:
        _put(tokens, kind, replacement, start)
    return end


def _put(tokens: Tokens, kind: str, text: str, start: int) -> None:
    """Add a token, or lengthen the name right before it."""
    if kind == IDENT and tokens.kinds and tokens.kinds[-1] in KEYWORDS | {IDENT}:
        last = len(tokens.kinds) - 1
        if tokens.end(last) == start:
            tokens.kinds[last] = IDENT
            tokens.texts[last] += text
            return
    tokens.kinds.append(kind)
    tokens.texts.append(text)
    tokens.starts.append(start)


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def _shown(char: str) -> str:
    return f"`{char}`" if char.isprintable() else f"U+{ord(char):04X}"
