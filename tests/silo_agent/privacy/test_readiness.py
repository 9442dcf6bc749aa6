"""What `silo-agent check` says of differential privacy."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from data_contracts.dataset.contract import parse_contract
from data_contracts.errors import SiloOperatorError
from infra.storage.config import StorageSection
from silo_agent.config import SiloConfig, TrainingSection
from silo_agent.policy.policy_file import PolicyFile
from silo_agent.privacy.ledger import MARK_NAME, PrivacyLedger
from silo_agent.privacy.ledger_lines import statement_of
from silo_agent.readiness.facts import Facts
from silo_agent.readiness.privacy import privacy
from silo_agent.release.outbox import OUTBOX, Outbox
from tests.aggregator.federation_samples import COHORT, federation, key
from tests.data_contracts.dataset.contract_samples import CONTRACT
from tests.silo_agent.privacy.ledger_samples import NOW, written

BUDGET = """\
  - property: fl.privacy
    value: {population: ward, unit: record, epsilon: "8", delta: "0.00001"}
"""
ABSENT = SiloOperatorError("a", expected="b", found="c", action="d")


def facts(home: Path, contract: str = CONTRACT + BUDGET, **training: Any) -> Facts:
    config = SiloConfig(
        silo="bank-a",
        federation="oncology",
        storage=StorageSection(endpoint_url="http://127.0.0.1:1"),
        training=TrainingSection(**training),
        home=home,
    )
    return Facts(
        config=config,
        now=NOW,
        key=ABSENT,
        policy=PolicyFile(None, None, None),
        pinned=ABSENT,
        credential=ABSENT,
        promises=None,
        feed=None,
        contract=parse_contract(contract.encode(), "contract"),
    )


def test_a_contract_without_a_budget_has_no_item(tmp_path: Path) -> None:
    assert privacy(facts(tmp_path, CONTRACT)) == []
    assert privacy(replace(facts(tmp_path), contract=ABSENT)) == []


def test_what_was_spent_is_there(tmp_path: Path) -> None:
    written(tmp_path, 1)
    (item,) = privacy(facts(tmp_path))
    assert item.state == "there"
    assert item.detail.startswith("ward: epsilon 0.")
    assert "of 8 spent in 1 trainings" in item.detail


def test_settings_under_which_nothing_is_private_are_wrong(tmp_path: Path) -> None:
    (item,) = privacy(facts(tmp_path, zero_stage=3))
    assert item.refused
    assert "zero_stage" in item.next_step


def test_a_ledger_that_was_put_back_is_wrong(tmp_path: Path) -> None:
    ledger: PrivacyLedger = written(tmp_path, 1)
    ledger.path.unlink()
    (item,) = privacy(facts(tmp_path))
    assert item.refused
    assert "an older state" in item.detail


def test_a_budget_that_is_spent_is_wrong(tmp_path: Path) -> None:
    written(tmp_path, 1)
    contract = (CONTRACT + BUDGET).replace('epsilon: "8"', 'epsilon: "0.5"')
    (item,) = privacy(facts(tmp_path, contract))
    assert item.refused
    assert "of 0.5 spent" in item.detail
    assert "fl.privacy.epsilon" in item.next_step


def test_a_delta_above_one_in_the_units_that_were_counted_is_wrong(tmp_path: Path) -> None:
    ledger = written(tmp_path, 1)
    units = next(ledger.read().charges())[1].units
    assert units is not None
    contract = (CONTRACT + BUDGET).replace('delta: "0.00001"', 'delta: "0.01"')
    (item,) = privacy(facts(tmp_path, contract))
    assert item.refused is (units > 100)
    assert units > 100
    assert "fl.privacy.delta" in item.next_step


def test_a_ledger_that_is_gone_with_its_mark_is_found_by_what_the_silo_has_signed(
    tmp_path: Path,
) -> None:
    ledger = written(tmp_path, 1)
    (line, charged) = next(ledger.read().charges())
    silo = COHORT[0]
    signed = federation().verdict(silo, privacy=statement_of(line, charged))
    Outbox(tmp_path / OUTBOX, key(silo)).keep(signed)
    (item,) = privacy(facts(tmp_path))
    assert item.state == "there"
    ledger.path.unlink()
    (tmp_path / MARK_NAME).unlink()
    (item,) = privacy(facts(tmp_path))
    assert item.refused
    assert "which it signed" in item.detail
