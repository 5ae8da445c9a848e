"""Tokens to blocks and mentions, in one pass that never fails.

The parser reads what is right and explains what is wrong; this pass reads what is being typed. It
knows only enough grammar to tell which block a word is in and what it is for, and takes a step at
the start of a line for a sign that a block of options before it lacks its brace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runkon_server.dsl.editing.blocks import (
    BODIES,
    DECLARATIONS,
    FILE,
    MAP,
    UNKNOWN,
    Block,
    Mention,
    Role,
    Structure,
)
from runkon_server.dsl.editing.tracing import Tracer
from runkon_server.dsl.keys import KEYS
from runkon_server.dsl.tokens import (
    AGENT_KINDS,
    EOF,
    IDENT,
    INPUT_MODIFIERS,
    INT,
    KEY_KINDS,
    KEYWORDS,
    NAME_KINDS,
    NODE_KEYWORDS,
    STRING,
)

if TYPE_CHECKING:
    from runkon_server.dsl.tokens import Tokens

_WORDS: Final = KEYWORDS | {IDENT}
_LISTED: Final = _WORDS | {STRING, INT, ",", "."}
_AFTER_VALUE: Final = frozenset({"}", "]", ",", EOF}) | NODE_KEYWORDS


def scan(tokens: Tokens) -> Structure:
    """The blocks and mentions of a text, whatever is wrong with it."""
    scanner = _Scanner(tokens)
    scanner.read()
    return Structure(root=scanner.root, mentions=tuple(scanner.mentions))


class _Scanner(Tracer):
    def read(self) -> None:
        """Read all tokens."""
        while self._kind != EOF:
            index = self._index
            if self._kind == "}":
                closed = self._close()
                if closed is not None and closed.construct == "do" and self._kind == "while":
                    self._read_do_while(closed)
            elif self._kind == "{":
                self._read_brace()
            elif self._too_deep:
                self._index += 1
            else:
                self._read_in_block()
            assert self._index > index or self._kind == EOF
        length = self.root.end
        for block in self._stack[1:]:
            block.ends_at = block.end = length

    def _read_brace(self) -> None:
        headed = self._headed
        self._open(self._begin(UNKNOWN) if headed is None else headed)

    def _read_in_block(self) -> None:
        construct = self._top.construct
        if construct == FILE:
            self._read_in_file()
        elif construct in BODIES:
            self._read_in_body()
        elif self._lacks_brace():
            self._leave_unclosed_once()
        elif construct == DECLARATIONS:
            self._read_declaration()
        elif construct == MAP:
            self._read_entry()
        else:
            self._read_option_or_skip()

    def _lacks_brace(self) -> bool:
        """Whether a step starts here, in a block that cannot contain one."""
        if self._kind not in NODE_KEYWORDS or self._peek() == "=" or not self._starts_line():
            return False
        if self._top.construct == DECLARATIONS:
            following = self._peek()
            on_line = self._index + 1 < len(self._tokens) and not self._breaks_after()
            return on_line and following not in INPUT_MODIFIERS | {"}", EOF}
        return True

    def _breaks_after(self) -> bool:
        self._index += 1
        breaks = self._starts_line()
        self._index -= 1
        return breaks

    def _leave_unclosed_once(self) -> None:
        self._leave_unclosed()
        while self._top.construct not in BODIES and self._top is not self.root:
            self._leave_unclosed()
        self._read_in_block()

    def _read_in_file(self) -> None:
        if self._kind == "workflow":
            block = self._begin("workflow")
            self._note(Role.KEYWORD, block)
            if self._kind in NAME_KINDS:
                block.name = self._note(Role.WORKFLOW, block)
            self._finish_head(block)
        else:
            self._read_in_body()

    def _read_in_body(self) -> None:
        kind = self._kind
        if self._at_pair():
            self._read_option()
        elif kind in NODE_KEYWORDS:
            self._read_node()
        elif kind in {"meta", "inputs"}:
            block = self._begin("meta" if kind == "meta" else DECLARATIONS)
            self._note(Role.KEYWORD, block)
            self._finish_head(block)
        else:
            self._skip()

    def _skip(self) -> None:
        """Step over a token without a meaning, which may still have placeholders in it."""
        if self._kind == STRING:
            self._note(Role.WORD, self._top)
        else:
            self._index += 1

    # Steps

    def _read_node(self) -> None:
        keyword = self._kind
        if keyword == "call" and self._peek() == "workflow":
            block = self._begin("call workflow")
            self._note(Role.KEYWORD, block)
        elif keyword == "call" and self._top.construct == "parallel":
            block = self._begin("parallel call")
        else:
            block = self._begin(keyword)
        self._note(Role.KEYWORD, block)
        if block.construct == "call workflow":
            self._read_name(block, Role.CHILD)
        elif keyword == "call":
            if self._kind in AGENT_KINDS:
                block.name = self._note(Role.AGENT, block)
        elif keyword in {"if", "unless", "while"}:
            self._read_condition(block, needs_marker=keyword == "while")
        elif keyword in {"script", "foreach"}:
            self._read_name(block, Role.NAMED)
        elif keyword == "gate":
            self._read_name(block, Role.GATE_TYPE)
            if block.name is not None and f"gate {block.name.text}" in KEYS:
                block.construct = f"gate {block.name.text}"
        self._finish_head(block)

    def _read_name(self, block: Block, role: Role) -> None:
        if self._at_name():
            block.name = self._note(role, block)

    def _read_condition(self, block: Block, *, needs_marker: bool) -> None:
        if not self._at_name():
            return
        if self._peek() != "." and not needs_marker:
            self._note(Role.CONDITION, block)
            return
        step = self._note(Role.STEP, block)
        if self._kind == ".":
            self._index += 1
            if self._at_name():
                self._note(Role.MARKER, block, of=step.text)

    def _read_do_while(self, block: Block) -> None:
        """Read what follows the block of a `do`, and belongs to it unless a block follows that."""
        behind = 2 + 2 * (self._peek(2) == ".")
        if self._peek() in NAME_KINDS and self._kinds[self._index + behind] == "{":
            return
        block.construct = "do … while"
        self._note(Role.KEYWORD, block)
        self._read_condition(block, needs_marker=True)
        block.end = self._tokens.end(self._index - 1)

    # Options

    def _read_option_or_skip(self) -> None:
        block = self._top
        if self._at_pair():
            self._read_option()
        elif self._kind == "inputs" and self._peek() == "{" and "inputs" in KEYS[block.construct]:
            key = self._note(Role.KEY, block)
            block.keys.append(key)
            self._open_map(key.text)
        else:
            self._skip()

    def _open_map(self, of: str) -> None:
        block = self._begin(MAP)
        block.of = of
        self._open(block)

    def _read_option(self) -> None:
        """Read `key =` and its value, if there is one."""
        block = self._top
        self._headed = None
        key = self._note(Role.KEY, block)
        block.keys.append(key)
        self._index += 1
        if self._kind == "{":
            self._open_map(key.text)
        elif self._kind == "[":
            self._read_list(key.text)
        elif self._at_value():
            self._read_value(key.text)

    def _at_value(self) -> bool:
        """Whether a value is here, rather than what follows a value that is missing."""
        kind = self._kind
        if kind in {STRING, INT}:
            return True
        if kind not in _WORDS or self._at_pair():
            return False
        if kind not in NODE_KEYWORDS or not self._starts_line():
            return True
        after = self._peek()
        return after in _AFTER_VALUE or (after in KEY_KINDS and self._peek(2) == "=")

    def _read_list(self, key: str) -> None:
        self._index += 1
        is_closed = self._list_closes()
        while self._kind in _LISTED and not self._at_pair():
            if self._kind in {",", "."}:
                self._index += 1
            elif not is_closed and self._kind in NODE_KEYWORDS and self._starts_line():
                return
            else:
                self._note(Role.WORD, self._top, of=key)
        if self._kind == "]":
            self._index += 1

    def _list_closes(self) -> bool:
        """Whether nothing but elements stands before the next `]`."""
        index = self._index
        while self._kinds[index] in _LISTED:
            index += 1
        return self._kinds[index] == "]"

    def _read_value(self, key: str) -> None:
        block = self._top
        role, second = _roles(block.construct, key)
        if self._kind == STRING:
            self._read_quoted(key, role, second)
            return
        first = self._note(role, block, of=key)
        text = first.text
        if self._kind == ".":
            self._index += 1
            if self._at_name():
                part = self._note(second, block, of=first.text)
                text = f"{text}.{part.text}"
        block.values[key] = text

    def _read_quoted(self, key: str, role: Role, second: Role) -> None:
        """Read a value in quotes, which may be two words with a dot between them."""
        block = self._top
        raw = self._tokens.texts[self._index][1:].removesuffix('"')
        step, dot, rest = raw.partition(".")
        if second is Role.WORD or not dot:
            block.values[key] = self._note(role, block, of=key).text
            return
        start = self._tokens.starts[self._index] + 1
        behind = start + len(step) + 1
        self.mentions += (
            Mention(role, step, start, start + len(step), block, key),
            Mention(second, rest, behind, behind + len(rest), block, step),
        )
        block.values[key] = raw
        self._index += 1

    # Maps and declarations

    def _read_entry(self) -> None:
        block = self._top
        if not self._at_pair():
            self._skip()
            return
        key = self._note(Role.ENTRY, block)
        block.keys.append(key)
        self._index += 1
        if self._at_value():
            block.values[key.text] = self._note(Role.WORD, block, of=key.text).text

    def _read_declaration(self) -> None:
        block = self._top
        if self._kind in INPUT_MODIFIERS and block.keys:
            modifier = self._note(Role.MODIFIER, block)
            if self._kind == "=":
                self._index += 1
                if self._at_value():
                    self._note(Role.WORD, block, of=modifier.text)
        elif self._kind in NAME_KINDS:
            block.keys.append(self._note(Role.INPUT, block))
        else:
            self._skip()


def _roles(construct: str, key: str) -> tuple[Role, Role]:
    """What the value of an option is, and what stands behind a dot in it."""
    match construct, key:
        case "parallel call", "if":
            return Role.STEP, Role.MARKER
        case "gate quality_gate", "source":
            return Role.STEP, Role.WORD
        case _, "options":
            return Role.STEP, Role.FIELD
        case "foreach", "workflow":
            return Role.CHILD, Role.WORD
        case "parallel", "name":
            return Role.NAMED, Role.WORD
        case _, "name" if construct.startswith("gate"):
            return Role.GATE_NAME, Role.WORD
        case _:
            return Role.WORD, Role.WORD
