"""Archives of evidence: what is read back is what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runkon_server.verify.__main__ import main
from runkon_server.verify.evidence import (
    Delivery,
    Effect,
    Fault,
    Operation,
    Ownership,
    Subscription,
    UnreadableArchiveError,
    dump,
    load,
)
from runkon_server.verify.invariants import check
from runkon_server.verify.sometimes import Sometimes
from support.evidence import evidence_of, with_row
from support.plays import Play

if TYPE_CHECKING:
    from pathlib import Path

    from runkon_server.verify.evidence import Evidence


def seen() -> Evidence:
    play = Play("call a\ncall b")
    play.complete("a", "b")
    run_id = play.world.run["run_id"]
    return evidence_of(
        play.world,
        ownership=[Ownership(run_id=run_id, generation=1, token="A", at=1.0, why="started")],
        operations=[Operation(mono_s=1.5, proc="c1", op_id="1", kind="invoke", op="StartRun")],
        subscriptions=[
            Subscription(
                subscriber="s",
                run_id=run_id,
                deliveries=[Delivery(seq=1, kind="run_started", epoch=1)],
            )
        ],
        effects=[Effect(idem_key="k", run_id=run_id, step="b.0000", iterations=(1, 2))],
        faults=[Fault(kind="kill", at=1.0, owner_token="B")],
        sometimes={"steal": 1},
        canaries=["secret-of-the-canary"],
    )


def test_archive_is_checked_again_with_the_same_result() -> None:
    """Lists and tuples of rows are JSON's; everything that invariants look at comes back."""
    broken = with_row(seen(), last_seq=99)

    again = load(dump(broken))

    assert again.effects == broken.effects
    assert again.subscriptions[0].deliveries == broken.subscriptions[0].deliveries
    assert check(again) == check(broken) != []
    assert load(dump(again)) == again


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "runs": 3}'])
def test_what_is_no_archive_is_refused(text: str) -> None:
    with pytest.raises(UnreadableArchiveError):
        load(text)


def test_archive_is_checked_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints each violation, and ends with 1 if there is one."""
    path = tmp_path / "archive.json"
    path.write_text(dump(seen()), encoding="utf-8")
    assert main([str(path)]) == 0
    assert capsys.readouterr().out.endswith("1 runs, 7 events: 0 violations\n")

    path.write_text(dump(with_row(seen(), last_seq=99)), encoding="utf-8")
    assert main([str(path)]) == 1
    assert capsys.readouterr().out.startswith("S5 run 01RUN: 7 events, the row counts 99\n")

    path.write_text("{}", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main([str(path)])
    assert ended.value.code == 2


def test_part_of_the_runs_keeps_what_is_about_them() -> None:
    whole = seen()

    assert whole.of_runs(whole.runs) == whole
    none = whole.of_runs([])
    assert [*none.runs, *none.ownership, *none.subscriptions, *none.effects] == []
    assert none.operations == whole.operations


def test_what_has_to_occur_is_counted() -> None:
    """What nobody expects cannot be counted: it would prove nothing."""
    sometimes = Sometimes({"steal": 2, "cancel": 1})
    sometimes.occurred("steal")
    sometimes.occurred("cancel", 3)

    assert sometimes.missing() == {"steal": (1, 2)}
    assert sometimes.counts() == {"steal": 1, "cancel": 3}
    with pytest.raises(KeyError):
        sometimes.occurred("stael")
