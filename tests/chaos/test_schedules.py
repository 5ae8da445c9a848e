"""Schedules, programs and roles: what a seed decides, and that both sides agree on it."""

from __future__ import annotations

import itertools

import pytest

from runkon_client.verify import roles as workers_side
from runkon_server.dsl.parser import parse
from runkon_server.dsl.validate_set import validate_set
from runkon_server.verify.chaos import roles as rigs_side
from runkon_server.verify.chaos.deeds import DEEDS
from runkon_server.verify.chaos.forms import (
    BodyFailedError,
    Branch,
    Call,
    ForEach,
    Fork,
    Gate,
    Loop,
    Play,
    Program,
)
from runkon_server.verify.chaos.programs import make_book
from runkon_server.verify.chaos.schedule import Kind, dump_schedule, load_schedule, make_schedule

NOWHERE: dict[str, Program] = {}


def test_a_seed_makes_one_schedule_that_can_be_read_again() -> None:
    schedule = make_schedule(7, 150, frozenset(Kind), lease_ttl_s=3)

    assert schedule == make_schedule(7, 150, frozenset(Kind), lease_ttl_s=3)
    assert schedule != make_schedule(8, 150, frozenset(Kind), lease_ttl_s=3)
    assert load_schedule(dump_schedule(schedule)) == schedule


@pytest.mark.parametrize("seed", range(20))
def test_150_seconds_hold_every_kind_of_fault_twice(seed: int) -> None:
    """Once would do, if none were ever skipped because too much was broken already."""
    schedule = make_schedule(seed, 150, frozenset(Kind), lease_ttl_s=3)
    kinds = [fault.kind for fault in schedule]

    assert all(kinds.count(kind) >= 2 for kind in Kind)
    assert all(0 < fault.at_s < 150 for fault in schedule)


def test_every_kind_can_be_done_and_is_told_in_words() -> None:
    assert set(DEEDS) == set(Kind)
    assert all(kind.words and kind.number for kind in Kind)


def test_no_faults_are_possible() -> None:
    assert make_schedule(1, 60, [], lease_ttl_s=3) == ()


@pytest.mark.parametrize("text", ['{"at_s": 1}\n', '{"kind": "flood"}\n', "no JSON\n"])
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        load_schedule(text)


@pytest.mark.parametrize("seed", range(10))
def test_generated_programs_are_valid(seed: int) -> None:
    """Without a warning: what the generator writes is what it means."""
    book = make_book(seed)

    reports = validate_set({each.name: parse(each.source, each.name) for each in book.programs})

    assert [report.diagnostics for report in reports.values() if report.diagnostics] == []
    assert make_book(seed).for_callers() == book.for_callers()


def test_books_of_a_few_seeds_use_every_construct() -> None:
    text = "".join(each.source for seed in range(3) for each in make_book(seed).programs)
    words = "if unless while do parallel foreach gate retries ordered workflow always on_fail"

    assert [word for word in words.split() if f"{word} " not in text] == []


ACTIONS = ("a1", "a1_y", "a1_x", "a1_f2", "a1_m3", "a1_b1", "a1_f1_y")


def test_workers_do_what_the_rig_expects() -> None:
    """Client and server share no code, so the two readings of a name are compared here."""
    for action, attempt, iteration, item in itertools.product(
        ACTIONS, range(4), range(4), ("", "i0", "i1")
    ):
        theirs = workers_side.act(
            action, attempt=attempt, iteration=iteration, inputs={"item": item} if item else {}
        )
        ours = rigs_side.act(action, attempt=attempt, iteration=iteration, item=item)

        assert (theirs.outcome, theirs.is_final) == (ours.outcome, ours.is_final)
        assert frozenset(theirs.markers) == ours.markers


def played(*body: object, flag: bool = False, library: dict[str, Program] | None = None) -> Play:
    run = Play("w", "", flag, library or NOWHERE)
    for form in body:
        form.play(run)  # type: ignore[attr-defined] # any form
    return run


def names(run: Play) -> list[tuple[str, tuple[int, ...], int]]:
    return sorted(
        (action, passes, attempt)
        for (_, action, passes, _, attempt, _), times in run.effects.items()
        for _ in range(times)
    )


def test_on_paper_a_loop_runs_as_long_as_its_step_says_more() -> None:
    """`m3` says more in the passes 0 and 1; `while` asks it once before."""
    step = Call("a_m3")
    loop = Loop("a_m3", tests_first=False, body=(step,), limit=4)
    asked = Loop("b_m1", tests_first=True, body=(Call("c"), Call("b_m1")), limit=2)

    assert names(played(loop)) == [("a_m3", (0,), 0), ("a_m3", (1,), 0), ("a_m3", (2,), 0)]
    assert names(played(Call("b_m1"), asked)) == [("b_m1", (), 0)]


def test_on_paper_retries_end_with_the_first_success() -> None:
    assert names(played(Call("a_f1", retries=3))) == [("a_f1", (), 0), ("a_f1", (), 1)]
    with pytest.raises(BodyFailedError):
        played(Call("a_x", retries=1))
    assert names(played(Call("a_x", on_fail="continue"))) == [("a_x", (), 0)]


def test_on_paper_conditions_look_at_markers_and_at_the_flag() -> None:
    said, inside = Call("a_y"), (Call("b"),)

    assert ("b", (), 0) in names(played(said, Branch(inside, "a_y")))
    assert ("b", (), 0) not in names(played(said, Branch(inside, "a_y", negated=True)))
    assert ("b", (), 0) in names(played(Branch(inside), flag=True))
    assert ("b", (), 0) not in names(played(Branch(inside)))


def test_on_paper_a_fork_needs_so_many_successes() -> None:
    bad, good = (Call("a_x"), None), (Call("b"), None)

    assert names(played(Fork((bad, good), min_success=1))) == [("a_x", (), 0), ("b", (), 0)]
    with pytest.raises(BodyFailedError):
        played(Fork((bad, good)))


def test_on_paper_items_fail_alone_or_with_those_behind_them() -> None:
    leaf = Program("leaf", (Call("a_b1"),))
    library = {"leaf": leaf}
    alone = ForEach("f", "leaf", 3, is_ordered=False, max_parallel=1)

    run = played(alone, library=library)

    assert len(run.effects) == 3
    with pytest.raises(BodyFailedError):
        played(ForEach("f", "leaf", 3, is_ordered=True, max_parallel=1), library=library)


def test_on_paper_a_rejected_gate_ends_the_body_and_always_follows() -> None:
    program = Program("w", (Gate("no_1"), Call("a")), always=(Call("b"),))

    outcome = program.play(item="", flag=False, library=NOWHERE)

    assert outcome.status == "failed"
    assert [action for _, action, *_ in outcome.effects] == ["b"]
