"""Values in shell texts: inert, and one word, wherever they stand. Real shells run the texts."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkon_server.dsl.shell import REFERENCE_PREFIX, read_shell

SHELLS = [shell for shell in ("sh", "bash --posix") if shutil.which(shell.split()[0])]
HOSTILE = (
    "$(touch owned)",
    "`touch owned`",
    '"; touch owned; echo "',
    "'; touch owned; echo '",
    "a\nb  c\n\n",
    "\\",
    "*",
    "${PATH}",
    "-n",
    "EOF",
    ") ; touch owned #",
    "ä {{x}} $$",
    "",
)


def run(shell: str, text: str, **values: str) -> str:
    """What a text prints, with these values for its placeholders."""
    read = read_shell(text)
    assert read.problem is None, read.problem
    environment = {
        f"{REFERENCE_PREFIX}{number}": values[name] for number, name in enumerate(read.names, 1)
    }
    done = subprocess.run(
        [*shell.split(), "-c", read.text],
        env={"PATH": os.defpath, **environment},
        capture_output=True,
        check=True,
        timeout=20,
    )
    return done.stdout.decode()


CONTEXTS = {
    "word": "printf '[%s]' {{x}}",
    "part of a word": "printf '[%s]' ''{{x}}''",
    "double quotes": 'printf "[%s]" "{{x}}"',
    "in text in double quotes": 'printf "%s" "[{{ x }}]"',
    "single quotes": "printf '[%s]' '{{x}}'",
    "between single quotes": "printf '[%s]' 'it'\\''s'{{x}} | sed \"s/it's//\"",
    "after a comment": "# don't \"stop {{y}}\nprintf '[%s]' {{x}}",
    "substitution": "printf '[%s]' \"$(printf '%s.' {{x}})\" | sed 's/\\.]$/]/'",
    "nested quotes": "printf '[%s]' \"$(printf '%s.' \"{{x}}\")\" | sed 's/\\.]$/]/'",
    "subshell": "(printf '[%s]' {{x}})",
    "function": "f() { printf '[%s]' \"$1\"; }\nf {{x}}",
    "case pattern before": "case a in b) ;; a) printf '[%s]' {{x}} ;; esac",
    "braces before": "a=${b:-\"it's}\"} c=\"${d:-it's}\"; printf '[%s]' {{x}}",
    "arithmetic before": "a=$(( (1 + 2) << 1 )); printf '[%s]' {{x}}",
    "backquotes before": "a=`echo '\\`'`; printf '[%s]' {{x}}",
    "assignment": "a={{x}}; printf '[%s]' \"$a\"",
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("value", HOSTILE, ids=repr)
@pytest.mark.parametrize("context", CONTEXTS)
def test_105_values_reach_the_command_as_one_literal_word(
    shell: str, context: str, value: str
) -> None:
    """Bad inputs 35: in every quoting a script author may choose, nothing of a value is run."""
    printed = run(shell, CONTEXTS[context], x=value)

    assert printed == f"[{value}]"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_values_are_literal_in_here_documents(shell: str, value: str) -> None:
    """The body expands once; the value cannot end it. Quotes in it are text."""
    text = "cat <<A <<-B\nnot this\nA\n\t\"it's\" {{x}} $(printf '%s' {{x}})\n\tB\nprintf {{y}}"

    inner = value.rstrip("\n")  # as every command substitution
    assert run(shell, text, x=value, y="end") == f'"it\'s" {value} {inner}\nend'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("echo $(( {{x}} + 1 ))", "inside $((...))"),
        ("(( {{x}} ))", "inside $((...))"),
        ("echo `echo {{x}}`", "inside `...`"),
        ('echo "`echo {{x}}`"', "inside `...`"),
        ("echo ${a:-{{x}}}", "inside ${...}"),
        ('echo "${a:-{{x}}}"', "inside ${...}"),
        ("echo $'{{x}}'", "beside $'...'"),
        (r"echo \{{x}}", "behind a backslash"),
        (r'echo "\{{x}}"', "behind a backslash"),
        ("echo ${{x}}", "behind `$`"),
        ('echo "${{x}}"', "behind `$`"),
        ("cat <<{{x}}\n{{x}}", "the end of a here-document"),
        ("cat <<'A'\n{{x}}\nA", "here-document that is quoted"),
        ("cat <<\\A\n{{x}}\nA", "here-document that is quoted"),
        ("a=$(case {{x}} in a) ;; esac)", "beside `case`"),
    ],
)
def test_where_no_reference_can_stand_a_placeholder_is_refused(text: str, problem: str) -> None:
    """With a message that names the place; the script must not run."""
    read = read_shell(text)

    assert read.problem is not None
    assert problem in read.problem


def test_same_name_is_one_variable() -> None:
    """Numbers follow the first use."""
    read = read_shell("echo {{b}} {{a}} '{{b}}' {{ inputs.c }}")

    assert read.names == ("b", "a", "inputs.c")
    assert read.text == ('echo "${_RUNKON_1}" "${_RUNKON_2}" \'\'"${_RUNKON_1}"\'\' "${_RUNKON_3}"')


def test_texts_without_placeholders_stay_as_they_are() -> None:
    """Whatever is in them: they are the author's."""
    for text in ("echo $'a' `b` $((1))", "echo '", "{{ 1 }} {{ a b }}", ""):
        read = read_shell(text)
        assert (read.text, read.names, read.problem) == (text, (), None)


def test_placeholder_in_a_comment_is_no_reference() -> None:
    """It needs no value."""
    read = read_shell("echo a#{{x}} # {{y}}\n#{{z}}")

    assert read.names == ("x",)
    assert "# {{y}}\n#{{z}}" in read.text


_PIECES = st.sampled_from(
    ["{{x}}", "{{y}}", "'", '"', "\\", "$", "`", "(", ")", "((", "{", "}", "$(", "${", "<<A", "A",
     "\n", " ", "#", "a", ";", "|", "case", "<<<", "\t", "<<'B'"]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=30).map("".join))
def test_values_are_never_part_of_the_text(text: str) -> None:
    """Any text at all: it is refused, or what replaces placeholders is a reference."""
    read = read_shell(text)

    if read.problem is None and read.names:
        rest = read.text
        for number in range(1, len(read.names) + 1):
            rest = rest.replace(f"${{{REFERENCE_PREFIX}{number}}}", "")
        assert REFERENCE_PREFIX not in rest
        assert set(read.names) <= {"x", "y"}
