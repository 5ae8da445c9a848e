"""docs/editors: what is to be copied into a configuration is well-formed and complete."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from runkon_server.dsl.tokens import KEYWORDS

EDITORS: Final = Path(__file__).resolve().parents[2] / "docs/editors"
FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND: Final = ["runkon", "lsp"]


def block(page: str, language: str) -> str:
    """The first block of a language on a page."""
    text = (EDITORS / page).read_text(encoding="utf-8")
    return next(found[2] for found in FENCE.finditer(text) if found[1] == language)


def read_json(name: str) -> Any:
    return json.loads((EDITORS / name).read_text(encoding="utf-8"))


def test_helix_starts_the_server_for_workflows() -> None:
    """The block is TOML; the language names the server that is configured above it."""
    config = tomllib.loads(block("helix.md", "toml"))

    (language,) = config["language"]
    assert language["file-types"] == ["wf"]
    (name,) = language["language-servers"]
    server = config["language-server"][name]
    assert [server["command"], *server["args"]] == COMMAND


def test_vs_code_starts_the_server_for_workflows() -> None:
    """The extension's manifest agrees with the grammar, the language and the page."""
    manifest = read_json("vscode/package.json")
    contributes = manifest["contributes"]
    settings = contributes["configuration"]["properties"]
    command = settings["runkon.server.command"]["default"]
    grammar = read_json("runkon.tmLanguage.json")

    assert [command, *settings["runkon.server.arguments"]["default"]] == COMMAND
    assert contributes["grammars"][0]["scopeName"] == grammar["scopeName"]
    assert Path(contributes["grammars"][0]["path"]).name == "runkon.tmLanguage.json"
    assert contributes["languages"][0]["extensions"] == [
        f".{each}" for each in grammar["fileTypes"]
    ]
    assert (EDITORS / "vscode" / manifest["main"]).is_file()
    assert (EDITORS / "vscode" / contributes["languages"][0]["configuration"]).is_file()
    assert f"runkon-{manifest['version']}.vsix" in (EDITORS / "vscode.md").read_text()
    assert set(json.loads(block("vscode.md", "json"))) == set(settings)


def test_brackets_and_words_are_those_of_the_language() -> None:
    """In VS Code's language configuration: hyphens belong to words, comments start with `//`."""
    config = read_json("vscode/language-configuration.json")

    assert config["comments"] == {"lineComment": "//"}
    assert re.fullmatch(config["wordPattern"], "review-code_2")
    rules = config["indentationRules"]
    assert re.search(rules["increaseIndentPattern"], "  do {  // again")
    assert not re.search(rules["increaseIndentPattern"], "  call x { retries = 1 }")
    assert re.search(rules["decreaseIndentPattern"], "  } while a.b")


@pytest.mark.parametrize(("page", "language"), [("neovim.md", "lua"), ("emacs.md", "elisp")])
def test_the_other_pages_start_the_server_too(page: str, language: str) -> None:
    """The command's words stand in the block, which has as many closing as opening brackets."""
    text = block(page, language)

    assert re.search(r'"runkon",? "lsp"', text)
    bare = re.sub(r'"(?:[^"\\]|\\.)*"|\?\\?.', "", text)
    for opening, closing in ("()", "{}"):
        assert bare.count(opening) == bare.count(closing)


@pytest.mark.parametrize("keyword", sorted(KEYWORDS))
def test_every_keyword_is_coloured_everywhere(keyword: str) -> None:
    """In Vim's syntax file and in the Emacs mode."""
    lines = (EDITORS / "vim/syntax/runkon.vim").read_text().splitlines()
    vim = " ".join(line for line in lines if line.startswith("syntax keyword"))

    assert keyword in vim.split()
    assert f'"{keyword}"' in block("emacs.md", "elisp")
