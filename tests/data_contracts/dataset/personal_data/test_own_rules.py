"""This package's own rules: what they find, what they leave alone, how long they take."""

import time

import pytest

from data_contracts.dataset.personal_data.kinds import KINDS, PRESIDIO_ENTITIES
from data_contracts.dataset.personal_data.normal_text import normal_text
from data_contracts.dataset.personal_data.recognisers import RULES, OwnRecognisers
from data_contracts.dataset.personal_data.rule_files import rules_of
from tests.data_contracts.dataset.personal_data.samples import HARMLESS, SAMPLES, sizes

OWN = sorted(KINDS - PRESIDIO_ENTITIES.keys())
HARD_PIECES = (
    "Mr. ",
    "Mr. A. ",
    "A. Aa ",
    "Dear " + "A" * 40,
    "patient Aa' ",
    'name: "',
    "From: Aa A. ",
    "1 Aa ",
    "1 of the ",
    "1 St. ",
    "MRN account no. : ",
    "policy no 1-",
    "IMEI 1 2 ",
    "VIN 1",
    "AAAAAAAA1",
    "aged  9",
    "MA  1",
    "DOB: 1/1/",
    "licence plate A",
    "\u00c4-\u00df",
    "yours signed sincerely\n \n ",
    "'",
    "9" * 30,
    "DE89 3704 0",
)
HARD_NUMBERS = ("tel. (", "1-", "900101-1", "A123456(", "0(2)3-", "personnummer 1")


@pytest.mark.parametrize(
    ("kind", "sample"), [(kind, sample) for kind in OWN for sample in SAMPLES[kind]]
)
def test_each_form_is_found_once_and_as_what_it_is(kind: str, sample: str) -> None:
    text = normal_text(f"It says {sample} and so on.").text
    assert OwnRecognisers(frozenset({kind})).count(text) == {kind: 1}


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_alike_is_left_alone(text: str) -> None:
    assert OwnRecognisers(KINDS).count(text) == {}


@pytest.mark.parametrize(
    "text",
    ["VIN: 1HGCM82633A004353 is mistyped", "1HGCM82633A004353 has a wrong check character"],
)
def test_a_wrong_check_character_needs_the_label(text: str) -> None:
    assert OwnRecognisers(frozenset({"vehicle_id"})).count(text) == (
        {"vehicle_id": 1} if text.startswith("VIN") else {}
    )


def test_counts_add_up_over_rules() -> None:
    text = "Mrs. Doe wrote: Dear Jane,\nName: John Doe\n"
    assert OwnRecognisers(KINDS).count(text) == {"person_name": 3}


def test_only_the_kinds_that_were_asked_for_come_out() -> None:
    text = "Mrs. Doe, aged 93, MRN: 123456"
    assert OwnRecognisers(frozenset({"age_over_89"})).count(text) == {"age_over_89": 1}


@pytest.mark.parametrize(("characters", "seconds"), sizes(seconds=3))
@pytest.mark.parametrize("piece", HARD_PIECES)
def test_text_made_to_be_slow_takes_no_longer_than_any(
    piece: str, characters: int, seconds: float
) -> None:
    text = (piece * (characters // len(piece) + 1))[:characters]
    for rule in RULES:
        began = time.process_time()
        for match in rule.pattern.finditer(text):
            rule.accepts(match)
        assert time.process_time() - began < seconds, rule.pattern.pattern


@pytest.mark.parametrize("piece", HARD_NUMBERS)
def test_rules_of_files_take_no_longer_for_text_made_to_be_slow(piece: str) -> None:
    """A ratio within one run: quadratic time would be sixteen times as long."""
    rules = list(rules_of(KINDS))
    taken = []
    for characters in (10_000, 40_000):
        text = piece * (characters // len(piece))
        began = time.process_time()
        for rule in rules:
            rule.add_to({}, text, text.lower())
        taken.append(time.process_time() - began)
    assert taken[1] < 8 * max(taken[0], 0.02)
