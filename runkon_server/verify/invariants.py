"""The invariants, by their numbers, and the check of them all.

The list and the numbers are those of `docs/guarantees.md`. One function each, named after what it
demands; each looks at the part of the evidence it needs, and at nothing if that was not watched.

Not here, because a finished history cannot show them: S22 (clocks; a differential run), S23
(tenants; the tests of the API), S25 (there is no audit log yet), L3 to L7 (rates and resources;
the rigs measure them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from runkon_server.verify import (
    invariants_clients,
    invariants_liveness,
    invariants_log,
    invariants_work,
)
from runkon_server.verify.plans import Plans
from runkon_server.verify.sometimes import sometimes_occurred

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runkon_server.verify.evidence import Evidence
    from runkon_server.verify.violations import Violation

    Invariant: TypeAlias = Callable[[Evidence, Plans], Iterator[Violation]]

OF_RUNS: Final[tuple[Invariant, ...]] = (
    invariants_log.s1_one_owner_per_generation,
    invariants_log.s2_generation_never_falls,
    invariants_log.s5_sequence_is_dense,
    invariants_clients.s6_streams_are_the_log,
    invariants_work.s7_events_give_the_rows,
    invariants_log.s8_transitions_are_legal,
    invariants_log.s9_one_end_per_epoch,
    invariants_log.s11_nothing_starts_after_cancel,
    invariants_log.s12_always_once_per_epoch,
    invariants_work.s14_attempts_are_bounded,
    invariants_work.s15_completed_steps_have_effects,
    invariants_work.s16_one_key_per_effect,
    invariants_work.s17_fan_outs_add_up,
    invariants_work.s18_children_end_once,
    invariants_work.s19_definition_stays_pinned,
    invariants_log.s21_nothing_fires_early,
    invariants_work.s26_queues_are_kept,
)
"""Safety of runs, one by one: what holds for a history holds for any part of its runs."""
OF_HISTORIES: Final[tuple[Invariant, ...]] = (
    invariants_clients.s3_answers_are_true,
    invariants_clients.s4_requests_count_once,
    invariants_clients.s10_one_winner_per_gate,
    invariants_work.s13_one_completion_per_attempt,
    invariants_log.s20_bounds_hold,
    invariants_clients.s24_secrets_stay_out,
)
"""Safety, for which all runs are needed."""
LIVENESS: Final[tuple[Invariant, ...]] = (
    invariants_liveness.l1_runs_come_to_rest,
    invariants_liveness.l2_takeover_is_swift,
    invariants_clients.l8_last_operations_succeed,
    sometimes_occurred,
)
"""Demands nothing before `healed_at`."""
ALL: Final = (*OF_RUNS, *OF_HISTORIES, *LIVENESS)


def check(evidence: Evidence, invariants: tuple[Invariant, ...] = ALL) -> list[Violation]:
    """Every violation of these invariants; none: the history is fine."""
    plans = Plans(evidence.definitions)
    return [found for invariant in invariants for found in invariant(evidence, plans)]
