"""Every diagnostic code of the language, with its title, its group and its usual severity.

A code is stable: it is never renumbered and never given a second meaning. The hundreds tell the
family: 1 characters, 2 grammar, 3 options and values, 4 limits, 5 meaning (501…531 are the checks
V01…V31 of the language's specification), 6 what this server does not run, 7 snapshots.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Severity(StrEnum):
    """Whether a problem keeps the workflow from being used."""

    ERROR = "error"
    WARNING = "warning"


class Group(StrEnum):
    """The error reason under which a caller sees a problem."""

    SYNTAX = "DSL_SYNTAX"
    LIMIT = "DSL_LIMIT"
    SEMANTIC = "DSL_SEMANTIC"
    UNSUPPORTED = "DSL_UNSUPPORTED"


@dataclass(frozen=True, slots=True)
class Code:
    """One kind of problem."""

    id: str
    title: str
    group: Group
    severity: Severity


_table: dict[str, Code] = {}


def _add(group: Group, severity: Severity, code_id: str, title: str) -> Code:
    assert code_id not in _table
    code = Code(code_id, title, group, severity)
    _table[code_id] = code
    return code


def _syntax(code_id: str, title: str) -> Code:
    return _add(Group.SYNTAX, Severity.ERROR, code_id, title)


def _limit(code_id: str, title: str) -> Code:
    return _add(Group.LIMIT, Severity.ERROR, code_id, title)


def _meaning(code_id: str, title: str) -> Code:
    return _add(Group.SEMANTIC, Severity.ERROR, code_id, title)


def _warning(code_id: str, title: str) -> Code:
    return _add(Group.SEMANTIC, Severity.WARNING, code_id, title)


UNEXPECTED_CHARACTER: Final = _syntax("WF101", "unexpected character")
UNTERMINATED_STRING: Final = _syntax("WF102", "string without a closing quote")
UNSTORABLE_CHARACTER: Final = _syntax("WF103", "character that cannot be stored")
UNKNOWN_ESCAPE: Final = _warning("WF104", "unknown escape in a string")

EXPECTED: Final = _syntax("WF201", "something else was expected here")
TRAILING_TEXT: Final = _syntax("WF202", "text after the end of the workflow")
UNCLOSED_BLOCK: Final = _syntax("WF203", "block is not closed")
UNKNOWN_STEP: Final = _syntax("WF204", "no such kind of step")
OPTION_AFTER_STEP: Final = _syntax("WF205", "option after the first step of a block")
OLD_LOOP: Final = _syntax("WF206", "loop condition before the block")
AMBIGUOUS_WHILE: Final = _syntax("WF207", "`while` after a `do` block with loop options")
STRAY_COMMA: Final = _syntax("WF208", "comma where none belongs")
MISPLACED_BLOCK: Final = _syntax("WF209", "block does not belong here")
EMPTY_PARALLEL: Final = _syntax("WF210", "parallel block without a call")

UNKNOWN_OPTION: Final = _warning("WF301", "option is not known here and has no effect")
DUPLICATE_OPTION: Final = _warning("WF302", "option is given twice")
MISSING_OPTION: Final = _syntax("WF303", "required option is missing")
WRONG_SHAPE: Final = _syntax("WF304", "text, list or map where another of them belongs")
NOT_A_NUMBER: Final = _syntax("WF305", "not a whole number")
UNKNOWN_WORD: Final = _syntax("WF306", "word is not one of the choices")
BAD_DURATION: Final = _syntax("WF307", "not a duration")
BAD_AGENT: Final = _syntax("WF308", "agent reference cannot be used")
BAD_CONDITION: Final = _syntax("WF309", "condition is not of the form step.marker")
THRESHOLD_RANGE: Final = _syntax("WF310", "threshold is above 100")
APPROVALS_WITH_REVIEW: Final = _syntax("WF311", "min_approvals together with review_decision")
OPTIONS_ON_QUALITY_GATE: Final = _syntax("WF312", "options on a quality gate")
BAD_OPTIONS_REFERENCE: Final = _syntax("WF313", "gate options are not of the form step.field")
ZERO: Final = _syntax("WF314", "zero makes no sense here")
BAD_BOOLEAN: Final = _syntax("WF315", "neither true nor false")
REFUSED_OPTION: Final = _syntax("WF316", "option does not belong to this block")
BAD_NAME: Final = _syntax("WF317", "text cannot be used as a name")
DUPLICATE_INPUTS: Final = _syntax("WF318", "a second inputs block")
WITHOUT_EFFECT: Final = _warning("WF321", "option has no effect on this type of gate")
AGENT_READING: Final = _warning("WF322", "quoted agent reference that is easily misread")
ON_FAIL_FAIL: Final = _warning("WF323", "on_fail = fail is the default")
REQUIRED_DEFAULT: Final = _warning("WF324", "default of a required input is never used")
REQUIRED_BOOLEAN: Final = _warning("WF325", "a boolean input is never required")
TRIGGER_NEVER_FIRES: Final = _warning("WF326", "trigger never fires")
NESTED_ALWAYS: Final = _warning("WF327", "nested always is an ordinary sequence")
STUCK_AFTER_ONE: Final = _warning("WF328", "stuck_after = 1 stops after the first pass")
DUPLICATE_INPUT: Final = _warning("WF329", "input is declared twice")
TYPE_WORD_INPUT: Final = _warning("WF330", "input named like a type")
NUMBERED_GATE: Final = _warning("WF331", "gate without a name of its own")
DUPLICATE_GATE: Final = _warning("WF332", "gate name is used twice")

NUMBER_TOO_LARGE: Final = _limit("WF401", "number is above 4294967295")
SOURCE_TOO_LARGE: Final = _limit("WF402", "source is too large")
TOO_DEEP: Final = _limit("WF403", "blocks are nested too deeply")
TOO_MANY_NODES: Final = _limit("WF404", "workflow has too many steps")
NAME_TOO_LONG: Final = _limit("WF405", "name is too long")
STRING_TOO_LONG: Final = _limit("WF406", "string is too long")
ABOVE_LIMIT: Final = _limit("WF407", "value is above its limit")
TOO_MANY_PROBLEMS: Final = _limit("WF408", "too many errors to go on")
TOO_MANY_ENTRIES: Final = _limit("WF410", "list, map or block has too many entries")
MORE_WARNINGS: Final = _add(Group.LIMIT, Severity.WARNING, "WF409", "more warnings than are shown")

STEP_BEFORE_IF: Final = _meaning("WF501", "condition on a step that has not run")
NOT_A_BOOLEAN_INPUT: Final = _meaning("WF502", "condition on something that is no boolean input")
STEP_BEFORE_WHILE: Final = _meaning("WF503", "loop on a step that has not run before it")
STEP_IN_DO_WHILE: Final = _meaning("WF504", "loop on a step that does not run in or before it")
STEP_BEFORE_CALL: Final = _meaning("WF505", "parallel call that depends on a step that has not run")
STEP_BEFORE_GATE: Final = _meaning("WF507", "quality gate on a step that has not run")
UNKNOWN_WORKFLOW: Final = _meaning("WF508", "called workflow cannot be loaded")
MISSING_INPUT: Final = _meaning("WF509", "called workflow needs an input that is not given")
UNKNOWN_CHILD: Final = _meaning("WF510", "workflow of a foreach cannot be loaded")
MISSING_CHILD_INPUT: Final = _meaning("WF511", "workflow of a foreach needs another input")
UNKNOWN_PROVIDER: Final = _meaning("WF512", "nobody provides the items of a foreach")
BAD_SCOPE: Final = _meaning("WF513", "provider does not take this scope")
SCOPE_REMARK: Final = _warning("WF514", "provider has a remark about the scope")
NO_ORDER: Final = _meaning("WF515", "provider knows no order of its items")
SKIP_WITHOUT_ORDER: Final = _meaning("WF516", "skip_dependents without ordered = true")
MISSING_FILTER: Final = _meaning("WF517", "provider demands a filter")
BAD_FILTER: Final = _meaning("WF518", "provider does not take this filter")
UNKNOWN_TARGET: Final = _meaning("WF519", "target is not one of those allowed")
CIRCULAR_CALL: Final = _meaning("WF520", "workflows call each other in a circle")
CALLS_TOO_DEEP: Final = _meaning("WF521", "workflows call each other too deeply")
SCRIPT_NOT_FOUND: Final = _meaning("WF522", "script is not where it is looked for")
SCRIPT_UNREADABLE: Final = _meaning("WF523", "nothing can be learnt about a script")
SCRIPT_NOT_EXECUTABLE: Final = _meaning("WF524", "script is not executable")
UNSERVED_ACTION: Final = _meaning("WF525", "nobody serves the action of a call")
UNSERVED_BRANCH: Final = _meaning("WF526", "nobody serves the action of a parallel call")
UNSERVED_GATE: Final = _meaning("WF528", "nobody resolves gates of this type")
UNSERVED_SCRIPT: Final = _meaning("WF529", "nobody executes scripts")
MIN_SUCCESS_ABOVE_CALLS: Final = _warning("WF551", "min_success is above the number of calls")
ENGINE_OWNED_INPUT: Final = _warning("WF552", "input has the name of a built-in variable")
UNDECLARED_CHILD_INPUT: Final = _warning("WF553", "child does not declare this input")
BAD_CHILD_BOOLEAN: Final = _meaning("WF554", "value of a child's boolean input is no boolean")
UNCHANGING_LOOP: Final = _warning("WF555", "nothing in a loop can change its condition")
NEVER_REACHED: Final = _warning("WF556", "step behind a certain failure")
UNKNOWN_PLACEHOLDER: Final = _warning("WF557", "placeholder without a value")
PLACEHOLDER_IN_PROMPT: Final = _warning("WF558", "placeholder in the prompt of a gate")
NAME_TWICE: Final = _warning("WF559", "two files declare the same workflow")
FILE_NAME: Final = _warning("WF560", "file is not named like its workflow")
UNKNOWN_SNIPPET: Final = _meaning("WF561", "prompt snippet is not there")
UNKNOWN_SCHEMA: Final = _meaning("WF562", "output schema is not there")
BAD_SCHEMA: Final = _meaning("WF563", "output schema cannot be used")
UNKNOWN_IDENTITY: Final = _warning("WF564", "nobody knows the identity to run as")
IDLE_OPTION: Final = _warning("WF565", "option changes nothing where it stands")
UNSERVED_ON_FAIL: Final = _warning("WF566", "nobody serves the agent of an on_fail")
MISPLACED_PLACEHOLDER: Final = _meaning("WF567", "placeholder where a script can take no value")

UNSUPPORTED: Final = _add(
    Group.UNSUPPORTED, Severity.ERROR, "WF601", "not served by this version of the server"
)

SNAPSHOT_UNREADABLE: Final = _syntax("WF701", "snapshot cannot be read")
OLDER_FORM: Final = _warning("WF702", "snapshot has the form of an older version")
IGNORED_FIELD: Final = _warning("WF703", "field of a snapshot is not known and has no effect")

CODES: Final[Mapping[str, Code]] = MappingProxyType(_table)
"""Every code by its id, in the order of the ids within each family."""
