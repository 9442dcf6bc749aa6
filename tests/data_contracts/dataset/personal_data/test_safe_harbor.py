"""The table of 45 CFR 164.514(b)(2)(i), and the kinds that it is about."""

from data_contracts.dataset.personal_data.kinds import DEFAULT_KINDS, KINDS, MEANINGS
from data_contracts.dataset.personal_data.safe_harbor import (
    coverage_table,
    rows_needing_attestation,
)
from tests.data_contracts.dataset.personal_data.samples import SAMPLES


def test_there_are_the_eighteen_identifiers_in_order() -> None:
    assert "".join(row.letter for row in coverage_table()) == "ABCDEFGHIJKLMNOPQR"


def test_every_kind_is_in_the_table_and_no_other() -> None:
    named = {kind for row in coverage_table() for kind in row.kinds}
    assert named == KINDS


def test_a_row_has_kinds_exactly_when_something_looks_for_it() -> None:
    for row in coverage_table():
        assert bool(row.kinds) == (row.coverage in ("detector", "partial"))
        assert row.explanation.endswith(".")


def test_the_table_promises_nothing() -> None:
    words = " ".join(f"{row.identifier} {row.explanation}" for row in coverage_table())
    assert "identified" not in words


def test_rows_with_a_detector_need_nobody_while_their_kind_is_looked_for() -> None:
    letters = [row.letter for row in rows_needing_attestation(KINDS)]
    assert "".join(letters) == "ABCGHIJKLMPQR"


def test_a_detector_that_is_not_asked_needs_a_person() -> None:
    letters = {row.letter for row in rows_needing_attestation(KINDS - {"phone_number"})}
    assert {"D", "E"} <= letters
    assert len(rows_needing_attestation(frozenset())) == 18


def test_the_default_kinds_are_identifiers_of_people() -> None:
    assert DEFAULT_KINDS < KINDS
    assert not DEFAULT_KINDS & {"date", "url"}


def test_every_kind_is_explained_and_sampled() -> None:
    assert MEANINGS.keys() == KINDS == SAMPLES.keys()
