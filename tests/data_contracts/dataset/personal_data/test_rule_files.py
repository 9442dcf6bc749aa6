"""Rules that are data: every sample of every file, and how few numbers pass for one by chance."""

import random
import re

import pytest

from data_contracts.dataset.personal_data.kinds import DEFAULT_KINDS, KINDS
from data_contracts.dataset.personal_data.normal_text import normal_text
from data_contracts.dataset.personal_data.recognisers import OwnRecognisers
from data_contracts.dataset.personal_data.rule_files import FiledRule, filed_kinds, filed_rules

RULES = filed_rules()
NAMED = [pytest.param(filed, id=f"{filed.file} {filed.name}") for filed in RULES]
ALONE = [
    pytest.param(filed, id=f"{filed.file} {filed.name}")
    for filed in RULES
    if filed.is_checked and not filed.is_labelled and filed.rule.kind != "phone_number"
]
CHANCES = 4_000
MOST_BY_CHANCE = 0.015
MOST_BY_CHANCE_IN_A_FORM = 0.12


@pytest.mark.parametrize("filed", NAMED)
def test_samples_are_found_or_passed(filed: FiledRule) -> None:
    recognisers = OwnRecognisers(frozenset({filed.rule.kind}))
    for sample in filed.found:
        text = normal_text(f"It says {sample} and so on.").text
        assert recognisers.count(text)[filed.rule.kind] >= 1, sample
    for sample in filed.passes:
        found: dict[str, int] = {}
        text = normal_text(f"It says {sample} and so on.").text
        filed.rule.add_to(found, text, text.lower())
        assert found == {}, sample


@pytest.mark.parametrize("filed", NAMED)
def test_each_has_samples_of_both_kinds_and_cues_where_it_has_a_label(filed: FiledRule) -> None:
    assert len(filed.found) >= 1
    assert len(filed.passes) >= 1
    assert filed.is_labelled == bool(filed.rule.cues)


@pytest.mark.parametrize("filed", ALONE)
def test_few_numbers_pass_by_chance(filed: FiledRule) -> None:
    """Of random numbers in the form of a sample: digits for digits, letters for letters. A form
    with separators or letters is rare enough in a text for a single check digit."""
    rng = random.Random(filed.name)
    for sample in (sample for sample in filed.found if " and " not in sample):
        is_form = re.search("[^0-9]", sample) is not None
        hits = 0
        for _ in range(CHANCES // len(filed.found)):
            text = re.sub("[0-9]", lambda _: str(rng.randrange(10)), sample)
            text = re.sub("[A-Za-z]", lambda _: rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), text)
            found: dict[str, int] = {}
            filed.rule.add_to(found, text, text.lower())
            hits += bool(found)
        most = MOST_BY_CHANCE_IN_A_FORM if is_form else MOST_BY_CHANCE
        assert hits / (CHANCES // len(filed.found)) <= most, sample


def test_their_kinds_are_looked_for_by_default() -> None:
    assert filed_kinds().keys() <= DEFAULT_KINDS <= KINDS
    assert {"kr_id", "de_id", "fr_id", "uk_id", "jp_id"} <= KINDS


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("주민등록번호: 900101-1234567", "kr_id"),
        ("연락처는 010-1234-5678입니다", "phone_number"),
        ("Fr. Maier, 15 070649 C 103", "de_id"),
        ("né(e) le 10/95, NIR 2 95 10 99 126 111 93", "fr_id"),
        ("NI no. AB 12 34 56 C", "uk_id"),
        ("マイナンバーは6214-9832-0257", "jp_id"),
        ("携帯 090-1234-5678", "phone_number"),
    ],
)
def test_as_people_write_them(text: str, kind: str) -> None:
    assert OwnRecognisers(KINDS).count(normal_text(text).text)[kind] >= 1
