"""A contract that lets its silo plant canaries says how many and of what; without a word, none."""

import pytest

from data_contracts.dataset.contract import parse_contract
from data_contracts.dataset.contract.difference import difference
from data_contracts.dataset.contract.summary import summary
from data_contracts.errors import DataStewardError
from tests.data_contracts.dataset.contract_samples import CONTRACT, sample_contract

TERM = "  - property: fl.canaries\n    value: {}\n"


def contract(value: str) -> bytes:
    return (CONTRACT + TERM.format(value)).encode()


def test_nothing_is_planted_where_a_contract_says_nothing_of_it() -> None:
    assert sample_contract().terms.canaries is None
    assert dict(summary(sample_contract()))["canaries"].startswith("none")


def test_a_number_is_enough_and_the_summary_says_what_is_done_to_the_records() -> None:
    found = parse_contract(contract("{number: 8}"), "contract")
    canaries = found.terms.canaries
    assert canaries is not None
    assert (canaries.number, canaries.form, canaries.copies) == (8, "digits", 4)
    assert dict(summary(found))["canaries"] == (
        "8 records with a random secret of digits, in 4 copies each, are trained on among the "
        "others"
    )


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("{}", "[fl.canaries].number"),
        ("{number: 1}", "[fl.canaries].number"),
        ("{number: 65}", "[fl.canaries].number"),
        ("{number: 8, form: words}", "[fl.canaries].form"),
        ("{number: 8, copies: 0}", "[fl.canaries].copies"),
        ("{number: 8, secrets: [1]}", "[fl.canaries].secrets"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_its_path(value: str, path: str) -> None:
    with pytest.raises(DataStewardError) as error:
        parse_contract(contract(value), "contract")
    assert path in str(error.value)


def test_records_that_hold_no_secret_have_no_canaries() -> None:
    classes = "  - property: fl.classes\n    value: [yes, no]\n".replace("yes", "good")
    text = contract("{number: 8}").decode() + classes
    changed = text.replace("name: prompt", "name: text").replace("name: answer", "name: label")
    with pytest.raises(DataStewardError) as error:
        parse_contract(changed.encode(), "contract")
    assert "customProperties[fl.canaries]" in str(error.value)


def test_canaries_that_come_go_or_grow_loosen_a_contract() -> None:
    without, eight, nine = (
        sample_contract(),
        parse_contract(contract("{number: 8}"), "contract"),
        parse_contract(contract("{number: 9}"), "contract"),
    )
    for old, new in ((without, eight), (eight, without), (eight, nine)):
        assert {change.effect for change in difference(old, new)} == {"loosens"}
