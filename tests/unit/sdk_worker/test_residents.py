"""The runs in a worker's memory, as Hello and heartbeats tell of them (H10)."""

from __future__ import annotations

from stepwell.residents import Resident, Residents
from stepwell.v1 import step_pb2


def resident(run_id: str, *, arriving: bool = False) -> Resident:
    one = Resident(step_pb2.Assign(run_id=run_id, turn=3, more=arriving))
    if not arriving:
        one.assign = None
    return one


def test_h10_a_run_whose_assignment_is_still_arriving_counts_but_is_not_listed() -> None:
    """The rest of its journal is lost with the stream: nobody could enter it."""
    residents = Residents()
    whole = resident("run_1")
    for one in (whole, resident("run_2", arriving=True)):
        residents.add(one)
    residents.set_parked(whole, True)
    assert len(residents) == 2
    assert residents.listing() == {"run_1": step_pb2.Resident(run_id="run_1", turn=3, parked=True)}


def test_h10_the_hash_does_not_depend_on_the_order() -> None:
    first, second = Residents(), Residents()
    for residents, order in ((first, "12"), (second, "21")):
        for n in order:
            residents.add(resident(f"run_{n}"))
    assert first.hash == second.hash != 0
    for one in list(first):
        first.remove(one)
    assert first.hash == 0
