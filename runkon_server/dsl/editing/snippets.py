"""The shape of each construct, with tab stops as editors write them: `$1`, `${1:name}`, `$0`."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYWORD_SNIPPETS: Final[Mapping[str | tuple[str, str], str]] = MappingProxyType(
    {
        "workflow": "workflow ${1:name} {\n  $0\n}",
        "meta": 'meta {\n  title = "$1"\n  description = "$2"\n}',
        "inputs": "inputs {\n  $0\n}",
        "call": "call ${1:action}",
        "if": "if ${1:step}.${2:marker} {\n  $0\n}",
        "unless": "unless ${1:step}.${2:marker} {\n  $0\n}",
        "while": "while ${1:step}.${2:marker} {\n  max_iterations = ${3:5}\n  $0\n}",
        "do": "do {\n  max_iterations = ${1:5}\n  $0\n} while ${2:step}.${3:marker}",
        "parallel": "parallel {\n  call ${1:action}\n  $0\n}",
        "gate": 'gate ${1:human_approval} {\n  prompt = "$2"\n}',
        "always": "always {\n  $0\n}",
        "script": 'script ${1:name} {\n  run = "$2"\n}',
        "foreach": "foreach ${1:name} {\n  over = ${2:tickets}\n  max_parallel = ${3:4}\n"
        "  workflow = ${4:workflow}\n}",
        ("agent", "workflow"): "workflow ${1:name}",
        ("loop end", "while"): "while ${1:step}.${2:marker}",
        "default": 'default = "$1"',
        "description": 'description = "$1"',
    }
)
"""Keyword → the construct it begins; those that are complete by themselves are missing.

A keyword that stands for something else in a certain place has a row with that place, a `Wanted`.
"""
