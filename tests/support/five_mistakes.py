"""Files with five unrelated mistakes each, and what they say when a mistake is put right.

In a text, `⟦wrong|right⟧` marks a mistake: what is written, and what should be.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_MARK: Final = re.compile(r"⟦(.*?)\|(.*?)⟧", re.DOTALL)


class Mistaken(NamedTuple):
    """One file."""

    name: str
    text: str
    """With its marks."""
    codes: tuple[str, ...]
    """What each mistake is told as, in the order of the marks."""

    def written(self, *, without: int | None = None) -> str:
        """The file as its author wrote it.

        Args:
            without: the number of a mistake that has been put right.
        """
        mistakes = iter(range(len(self.codes)))
        return _MARK.sub(lambda found: found[2 if next(mistakes) == without else 1], self.text)

    def put_right(self) -> str:
        """The file without a mistake."""
        return _MARK.sub(lambda found: found[2], self.text)


FILES: Final = (
    Mistaken(
        "release",
        """\
workflow release {
  meta { trigger = ⟦manul|manual⟧ }
  inputs { version⟦,|⟧ channel }
  call build { timeout = ⟦2h|"2h"⟧ }
  ⟦iff|if⟧ build.ok {
    call test
  }
  gate human_review {
    on_timeout = ⟦approve|continue⟧
  }
}
""",
        ("WF306", "WF208", "WF201", "WF204", "WF306"),
    ),
    Mistaken(
        "review",
        """\
workflow review {
  inputs {
    ticket required
    urgent ⟦required|boolean⟧
  }
  call read { retries = ⟦twice|2⟧ }
  if urgent { call shout }
  if ⟦raed|read⟧.unclear { call ask { on_fail = continue } }
  while read.open {
    ⟦stuck_after = 2|max_iterations = 4⟧
    call read
  }
  gate human_approval { timeout = "⟦2 days|48h⟧" }
}
""",
        ("WF502", "WF305", "WF501", "WF303", "WF307"),
    ),
    Mistaken(
        "deploy",
        """\
workflow deploy {
  call plan
  parallel {
    fail_fast = ⟦yes|true⟧
    call lint { if = plan.ready ⟦retires|retries⟧ = 1 }
    call test { retries = 1 }
  }
  do {
    max_iterations = ⟦0|3⟧
    call apply
  } while ⟦aplpy|apply⟧.again
  call ⟦"../rollback.md"|"ops/rollback.md"⟧
}
""",
        ("WF315", "WF301", "WF314", "WF504", "WF308"),
    ),
    Mistaken(
        "nightly",
        """\
workflow nightly {
  inputs { ⟦dry_run|rehearsal⟧ boolean }
  script clean { run = "make ⟦{{targt}}|all⟧" }
  call scan { ⟦on_fial|on_fail⟧ = continue }
  gate quality_gate { source = ⟦scann|scan⟧ threshold = 80 }
  parallel {
    min_success = ⟦3|2⟧
    call report
    call archive
  }
}
""",
        ("WF552", "WF557", "WF301", "WF507", "WF551"),
    ),
    Mistaken(
        "broken",
        """\
workflow broken {
  call fetch {
    retries ⟦|= ⟧2
  }
  call build ⟦;|⟧
  unless fetch.⟦.|⟧empty {
    call ⟦3d|threed⟧
  }
  always { call tidy { ⟦,|⟧ timeout = "1h" } }
}
""",
        ("WF201", "WF101", "WF201", "WF201", "WF208"),
    ),
    Mistaken(
        "crowd",
        "workflow crowd { call a { as = ⟦[me]|me⟧ } call ⟦gate|b⟧ { } "
        "gate human_review { ⟦mode|prompt⟧ = min_approvals }"
        " if ⟦c|a⟧.m { } do { ⟦retries|output⟧ = 1 call a } }\n",
        ("WF304", "WF201", "WF321", "WF501", "WF316"),
    ),
)
