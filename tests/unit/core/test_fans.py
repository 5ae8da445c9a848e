"""What a provider found, made into items that wait for one another."""

from __future__ import annotations

import random

import pytest

from runkon_server.core.facts import Dependency, Item
from runkon_server.core.fan import PAIRS_MAX, CycleError, TangleError, collect, fan_of
from runkon_server.core.persistent import CHUNK, Vector


def items(*ids: str) -> list[Item]:
    return [Item("ticket", each) for each in ids]


def edges(*pairs: str) -> list[Dependency]:
    """From `ab`: b waits for a."""
    return [Dependency(blocker=pair[0], dependent=pair[1]) for pair in pairs]


def test_013_the_same_item_twice_counts_once_and_another_type_is_another_item() -> None:
    found = [Item("t", "1", "first"), Item("u", "1"), Item("t", "1", "again")]
    fan, warning = collect(found, [], breaks_cycles=False)
    assert [(item.item_type, item.item_id) for item in fan.items] == [("t", "1"), ("u", "1")]
    assert fan.items[0].item_ref == "first"
    assert warning is None


def test_who_waits_for_whom_is_known_from_both_sides() -> None:
    fan, _ = collect(items("a", "b", "c"), edges("ab", "ac", "bc", "bc"), breaks_cycles=False)
    assert fan.blockers == ((), (0,), (0, 1))
    assert fan.dependents == ((1, 2), (2,), ())
    assert fan == fan_of(fan.items, fan.blockers)


def test_an_id_of_several_types_means_each_of_them() -> None:
    found = [Item("t", "1"), Item("u", "1"), Item("t", "2")]
    fan, _ = collect(found, edges("12"), breaks_cycles=False)
    assert fan.blockers == ((), (), (0, 1))


def test_unknown_blockers_are_satisfied_with_a_warning() -> None:
    fan, warning = collect(items("a", "b"), edges("xa", "ya", "ab"), breaks_cycles=False)
    assert fan.blockers == ((), (0,))
    assert warning == "blockers that are no items count as done: x, y"


@pytest.mark.parametrize(
    ("pairs", "circle"),
    [(("aa",), "a → a"), (("ab", "ba"), "a → b → a"), (("cb", "dc", "bd", "ab"), "b → c → d → b")],
)
def test_124_a_circle_is_named(pairs: tuple[str, ...], circle: str) -> None:
    with pytest.raises(CycleError) as found:
        collect(items("a", "b", "c", "d"), edges(*pairs), breaks_cycles=False)
    assert str(found.value) == circle


def test_a_long_circle_is_named_by_its_beginning() -> None:
    """Ids of 250 bytes, 10,000 of them, would be a text of megabytes."""
    names = [f"{n:0>250}" for n in range(10_000)]
    circle = [Dependency(a, b) for a, b in zip([*names[1:], names[0]], names, strict=True)]
    with pytest.raises(CycleError) as raised:
        collect(items(*names), circle, breaks_cycles=False)
    assert str(raised.value).startswith(f"{names[0]} → {names[1]} → ")
    assert str(raised.value).endswith(f"{names[7]} → … (10000 items)")


def test_circles_at_the_end_of_a_long_way_are_all_found() -> None:
    """The way to them is gone once, not once for each: 12 million steps became 10,000."""
    way = [Dependency(str(n + 1), str(n)) for n in range(5_000)]
    pairs = [(str(n), str(n + 1)) for n in range(5_001, 9_999, 2)]
    circles = [Dependency(*each) for a, b in pairs for each in ((a, b), (b, a), (a, "5000"))]
    names = [str(n) for n in range(10_000)]

    fan, warning = collect(items(*names), way + circles, breaks_cycles=True)

    assert warning is not None
    assert warning.endswith(f"and {len(pairs) - 8} more")
    assert [fan.blockers[int(a)] for a, _ in pairs] == [()] * len(pairs)
    assert [fan.blockers[int(b)] for a, b in pairs] == [(int(a),) for a, _ in pairs]


def test_a_name_that_many_items_share_does_not_multiply_without_end() -> None:
    """5,000 items of one id, and 5,000 of another that waits for it: 25 million pairs."""
    found = [Item(f"t{n}", name) for name in "ab" for n in range(5_000)]
    with pytest.raises(TangleError) as raised:
        collect(found, edges("ab"), breaks_cycles=True)
    assert str(PAIRS_MAX) in str(raised.value)


def test_124_a_circle_is_broken_at_its_first_item_and_the_rest_still_waits() -> None:
    fan, warning = collect(
        items("a", "b", "c", "d"), edges("ba", "cb", "ac", "cd"), breaks_cycles=True
    )
    assert fan.blockers == ((), (2,), (0,), (2,))
    assert warning is not None
    assert "circle" in warning


def test_every_item_can_end_whatever_depends_on_what() -> None:
    """Random graphs: after the circles are broken there is an order in which all can run."""
    for seed in range(300):
        chance = random.Random(seed)
        count = chance.randint(1, 12)
        names = [chr(ord("a") + n) for n in range(count)]
        pairs = [
            chance.choice(names) + chance.choice(names) for _ in range(chance.randint(0, 2 * count))
        ]
        fan, _ = collect(items(*names), edges(*pairs), breaks_cycles=True)
        done: set[int] = set()
        while len(done) < count:
            ready = [n for n in range(count) if n not in done and done.issuperset(fan.blockers[n])]
            assert ready, seed
            done.update(ready)


def test_a_long_chain_needs_no_stack() -> None:
    names = [str(n) for n in range(10_000)]
    chain = [Dependency(a, b) for a, b in zip(names[1:], names, strict=False)]
    fan, _ = collect(items(*names), chain, breaks_cycles=False)
    assert fan.blockers[0] == (1,)
    with pytest.raises(CycleError):
        collect(items(*names), [*chain, Dependency("0", "9999")], breaks_cycles=False)


def test_a_vector_changes_and_stays() -> None:
    count = 3 * CHUNK + 5
    before = Vector(range(count))
    for index in (0, CHUNK - 1, CHUNK, count - 1):
        after = before.replaced(index, -1)
        assert list(after) == [*range(index), -1, *range(index + 1, count)]
        assert after[index] == -1
        assert before[index] == index
        assert after != before
        assert after.replaced(index, index) == before
    assert list(Vector[int]()) == []
