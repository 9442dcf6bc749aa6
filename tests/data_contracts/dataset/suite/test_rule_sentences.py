"""Every rule that a verdict can speak about has a sentence for people who read no code."""

import re
from pathlib import Path

import pytest

from data_contracts.dataset.contract import DataContract, parse_contract
from data_contracts.dataset.contract.quality_rules import ALLOWED_TYPES
from data_contracts.dataset.suite.built_in_rules import built_in_rules, summary_rules
from data_contracts.dataset.suite.required_rules import REQUIRED_RULES
from data_contracts.dataset.suite.rule_sentences import sentence
from tests.silo_agent.gate_samples import SampleSilo

EXAMPLE = Path(__file__).parents[4] / "docs" / "contracts" / "image-text.yaml"
PRECONDITIONS = ("contract.current", "copyright.registries", "data.available", "licence.count")


def contract_with_every_rule() -> DataContract:
    text = EXAMPLE.read_text(encoding="utf-8")
    text += "  - property: fl.balance\n    value: {maxMajorityPerMille: 900}\n"
    if "fl.packageLicence" not in text:
        text += "  - property: fl.packageLicence\n    value: MIT\n"
    return parse_contract(text.encode(), "everything.yaml")


def is_plain(words: str) -> bool:
    """One sentence, without anything that only a program would say."""
    return bool(re.fullmatch(r"[A-Z][a-z' ,-]+\.", words))


def test_every_built_in_rule_has_a_sentence_of_its_own() -> None:
    contract = contract_with_every_rule()
    rules = (*built_in_rules(contract), *summary_rules(contract.terms))
    asked = {rule.rule: rule.type for rule in rules}
    assert {"licence.claims_agree", "opt_out.evidence", "images.allowed"} <= set(asked)
    asked |= dict.fromkeys(PRECONDITIONS, "precondition")
    assert set(asked) >= REQUIRED_RULES
    said = [sentence(rule, kind) for rule, kind in asked.items()]
    assert len(set(said)) == len(asked)
    assert [words for words in said if not is_plain(words)] == []
    assert sentence("somebody.elses", "precondition") not in said


def test_a_contract_s_own_rule_is_known_by_its_type() -> None:
    said = {sentence("contract.r1", kind) for kind in ALLOWED_TYPES}
    assert len(said) == len(ALLOWED_TYPES)
    assert all(is_plain(words) for words in said)
    assert sentence("contract.r1", "expect_something_else") not in said


def test_an_own_rule_called_as_the_precondition_is_not_taken_for_it() -> None:
    own = sentence("contract.current", "expect_column_values_to_be_between")
    assert own == sentence("contract.r1", "expect_column_values_to_be_between")
    assert own != sentence("contract.current", "precondition")


@pytest.mark.parametrize("rule", ["new.rule", "contract.new", "contract.", "drift"])
def test_what_is_not_known_has_a_sentence_that_repeats_nothing(rule: str) -> None:
    words = sentence(rule, "expect_what_nobody_expects")
    assert is_plain(words)
    assert rule not in words


def test_the_preconditions_named_here_are_those_of_the_gate(tmp_path: Path) -> None:
    silo = SampleSilo(tmp_path)
    silo.write_records([])
    found = {rule.rule for rule in silo.check().outcomes if rule.type == "precondition"}
    assert found == set(PRECONDITIONS)
