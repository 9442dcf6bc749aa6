"""Which changes loosen a contract; whatever is not known to tighten does."""

import pytest

from data_contracts.dataset.contract import parse_contract
from data_contracts.dataset.contract.difference import Change, difference
from data_contracts.dataset.contract.summary import summary
from tests.data_contracts.dataset.contract.test_terms import TERMS
from tests.data_contracts.dataset.contract_samples import CONTRACT

WHOLE = CONTRACT + TERMS


def changes(*pairs: tuple[str, str]) -> tuple[Change, ...]:
    text = WHOLE
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    return difference(parse_contract(WHOLE.encode(), "old"), parse_contract(text.encode(), "new"))


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("    Summaries", "    Summaries\n    Anything", "purposes"),
        ("[MIT, LicenseRef-Own]", "[MIT, LicenseRef-Own, GPL-3.0-only]", "licences"),
        ("value: 20", "value: 10", "minimumRecords"),
        ("value: 12", "value: 11", "minimumCohort"),
        ("2030-01-01", "2031-01-01", "expires"),
        ("maxCoveragePerMille: 50", "maxCoveragePerMille: 51", "copyright.maxCoveragePerMille"),
        (
            "evidenceRequired: true, maxAgeDays: 90",
            "evidenceRequired: false, maxAgeDays: 90",
            "optOut.evidenceRequired",
        ),
        ("maxAgeDays: 90", "maxAgeDays: 91", "optOut.maxAgeDays"),
        ("[email_address, phone_number]", "[email_address]", "personalData.kinds"),
        ("maxRecordsPerMille: 2", "maxRecordsPerMille: 3", "personalData.maxRecordsPerMille"),
        ("maxMajorityPerMille: 800", "maxMajorityPerMille: 900", "balance.maxMajorityPerMille"),
        ("days: 7", "days: 8", "retention.days"),
        ("[local-adapter, losses]", "[local-adapter, losses, rule-counts]", "egress.allow"),
        ("maxHammingDistance: 20", "maxHammingDistance: 19", "images.maxHammingDistance"),
        ("max_value: 500", "max_value: 510", "contract.answer-length"),
        ("severity: critical", "severity: warning", "contract.answer-length"),
        ("path: sets/records.jsonl", "path: sets/other.jsonl", "source.path"),
        ("noAi: false", "noAi: true", "licenceTerms"),
        ("Ethics board", "Somebody", "attestations"),
        ("  - property: fl.packageLicence\n    value: MIT\n", "", "packageLicence"),
    ],
)
def test_a_change_that_loosens(old: str, new: str, path: str) -> None:
    found = changes((old, new))
    assert path in {change.path for change in found if change.effect == "loosens"}


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("    Summaries\n", "", "purposes"),
        ("value: 20", "value: 30", "minimumRecords"),
        ("2030-01-01", "2029-01-01", "expires"),
        ("maxAgeDays: 90", "maxAgeDays: 60", "optOut.maxAgeDays"),
        ("[email_address, phone_number]", "[email_address, phone_number, us_ssn]", "personalData"),
        ("max_value: 500", "max_value: 490", "contract.answer-length"),
        ("[local-adapter, losses]", "[local-adapter]", "egress.allow"),
        ('["DUO:0000042"]', '["DUO:0000042", "DUO:0000046"]', "duoCodes"),
    ],
)
def test_a_change_that_tightens(old: str, new: str, path: str) -> None:
    found = changes((old, new))
    assert len(found) == 1
    assert found[0].path.startswith(path)
    assert found[0].effect == "tightens"


def test_a_registry_that_is_dropped_loosens() -> None:
    start = WHOLE.index("      registries: [")
    line = WHOLE[start : WHOLE.index("\n", start) + 1]
    (change,) = changes((line, ""))
    assert (change.path, change.effect) == ("copyright.registries", "loosens")
    assert "press" in change.before


def test_a_rule_that_goes_loosens_and_one_that_comes_tightens() -> None:
    start, end = WHOLE.index("    quality:\n"), WHOLE.index("customProperties:")
    without = WHOLE[:start] + WHOLE[end:]
    old, new = (parse_contract(text.encode(), "c") for text in (WHOLE, without))
    assert [c.effect for c in difference(old, new)] == ["loosens"]
    assert [c.effect for c in difference(new, old)] == ["tightens"]


BUDGET = """\
  - property: fl.privacy
    value: {population: ward, unit: subject, epsilon: "8", delta: "0.00001"}
"""


def budget_changes(old: str, new: str) -> tuple[Change, ...]:
    before, after = (
        parse_contract((WHOLE + text).encode(), "contract")
        for text in (BUDGET, BUDGET.replace(old, new))
    )
    return difference(before, after)


@pytest.mark.parametrize(
    ("old", "new", "effect"),
    [
        ('"8"', '"10"', "loosens"),
        ('"8"', '"7.5"', "tightens"),
        ("0.00001", "0.0001", "loosens"),
        ("0.00001", "0.000001", "tightens"),
        ("ward", "clinic", "loosens"),
        ("subject", "record", "loosens"),
    ],
)
def test_a_budget_that_grows_or_is_another_populations_loosens(
    old: str, new: str, effect: str
) -> None:
    assert [change.effect for change in budget_changes(old, new)] == [effect]


def test_a_budget_that_comes_or_goes_loosens() -> None:
    """Then private plans are allowed that were not, or plain ones."""
    without = parse_contract(WHOLE.encode(), "contract")
    having = parse_contract((WHOLE + BUDGET).encode(), "contract")
    for found in (difference(without, having), difference(having, without)):
        assert {change.effect for change in found} == {"loosens"}


def test_the_summary_says_what_the_budget_is_of() -> None:
    said = dict(summary(parse_contract((WHOLE + BUDGET).encode(), "contract")))
    assert said["differential privacy"] == (
        "of all records of one subject in ward: epsilon 8 at delta 0.00001 for all trainings "
        "together"
    )
    plain = dict(summary(parse_contract(WHOLE.encode(), "contract")))
    assert plain["differential privacy"].startswith("no budget")


def test_comments_and_versions_change_nothing() -> None:
    assert changes(("id: sample", "id: sample # a comment")) == ()
    assert [c.effect for c in changes(("version: 1.0.0", "version: 1.0.1"))] == ["neither"]


def test_a_contract_in_words_names_what_nobody_vouches_for() -> None:
    words = dict(summary(parse_contract(WHOLE.encode(), "c")))
    assert words["uses"] == "research, commercial"
    assert "press" in words["copyright"]
    assert "at most 90 days" in words["opt-outs"]
    assert words["to be attested (HIPAA)"].startswith("not vouched for: ")
