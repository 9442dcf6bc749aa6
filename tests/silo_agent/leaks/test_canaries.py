"""Canaries are random, the silo's own, the same in every round, and records of their form."""

import json

import pytest

from data_contracts.dataset.contract.canaries import PLANTABLE_FORMS, Canaries
from data_contracts.dataset.findings.keyed import Keyed
from data_contracts.dataset.forms import FORMS
from silo_agent.leaks.canaries import CANDIDATES, NAME, SECRET, planted_lines, reference_lines

OWN, OTHER = Keyed(b"k" * 32), Keyed(b"o" * 32)


def canaries(**changes: object) -> Canaries:
    stated = {"number": 3, "form": "digits", "copies": 2} | changes
    return Canaries.model_validate_json(json.dumps(stated))


def secrets(lines: list[str]) -> list[str]:
    return [json.loads(line)["answer"] for line in lines]


@pytest.mark.parametrize("form", PLANTABLE_FORMS)
def test_canaries_are_records_of_their_form_whose_secret_is_what_carries_loss(form: str) -> None:
    lines = list(reference_lines(canaries(), FORMS[form], OWN))
    assert len(lines) == len(set(lines)) == 3 + CANDIDATES
    for line in lines:
        assert FORMS[form].read(json.loads(line)), "as training reads it"
    said = str(FORMS[form].read(json.loads(lines[0])))
    digits = "".join(letter for letter in said if letter.isdigit())
    assert len(digits) == NAME + SECRET


def test_each_is_planted_as_often_as_the_contract_says_the_first_copies_first() -> None:
    form = FORMS["instruction"]
    planted = list(planted_lines(canaries(), form, OWN))
    assert planted == 2 * list(reference_lines(canaries(), form, OWN))[:3]


def test_they_are_the_same_every_time_and_nobody_elses() -> None:
    form = FORMS["instruction"]
    first = list(reference_lines(canaries(), form, OWN))
    assert list(reference_lines(canaries(), form, OWN)) == first
    assert not set(secrets(first)) & set(secrets(list(reference_lines(canaries(), form, OTHER))))


@pytest.mark.parametrize(("form", "letters"), [("digits", 10), ("letters", 26)])
def test_every_character_of_a_secret_is_any_of_its_alphabet(form: str, letters: int) -> None:
    found = secrets(list(reference_lines(canaries(form=form), FORMS["instruction"], OWN)))
    assert {len(secret) for secret in found} == {SECRET}
    for place in range(SECRET):
        column = [secret[place] for secret in found]
        expected = len(column) / letters
        spread = sum((column.count(letter) - expected) ** 2 for letter in set(column)) / expected
        assert len(set(column)) == letters
        assert spread < letters + 6 * (2 * letters) ** 0.5, "chi-square, six deviations above"
