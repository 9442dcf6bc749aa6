"""No count of 1 to 9 is shown, and none can be found again by subtraction."""

from hypothesis import given
from hypothesis import strategies as st

from data_contracts.dataset.small_cells import (
    reported_licences,
    reported_total,
    reported_unexpected,
)


def test_totals_and_unexpected_counts() -> None:
    assert [reported_total(n) for n in (0, 1, 9, 10, 11)] == [0, 0, 0, 10, 11]
    shown = [reported_unexpected(n, 40) for n in (0, 1, 9, 10, 30, 31, 39, 40)]
    assert shown == [0, None, None, 10, 30, None, None, 40]
    assert reported_unexpected(0, 5) is None


def test_one_small_licence_hides_the_next_smallest_too() -> None:
    cells = reported_licences({"MIT": 470, "Apache-2.0": 30, "NOASSERTION": 3})
    assert {cell.licence: cell.records for cell in cells} == {
        "Apache-2.0": None,
        "MIT": 470,
        "NOASSERTION": None,
    }


@given(st.dictionaries(st.sampled_from(["A", "B", "C", "D", "E"]), st.integers(1, 60)))
def test_no_small_cell_is_shown_or_derivable(counts: dict[str, int]) -> None:
    cells = {cell.licence: cell.records for cell in reported_licences(counts)}
    assert set(cells) == set(counts)
    hidden = sum(counts[name] for name, records in cells.items() if records is None)
    shown = [records for records in cells.values() if records is not None]
    assert all(records >= 10 for records in shown)
    assert hidden == 0 or hidden >= 10 or not shown
