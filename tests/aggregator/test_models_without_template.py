"""A base model without a chat template trains plain text, and nothing that a template renders."""

from pathlib import Path

import pytest

from data_contracts.errors import FederationOperatorError
from tests.data_contracts.dataset.forms.form_samples import CHAT, PLAIN
from tests.model_folders import set_template
from tests.simulator.federation import SimulatedFederation
from tests.simulator.silo import Behaviour


def federation_with(tmp_path: Path, model: Path, *contracts: str) -> SimulatedFederation:
    federation = SimulatedFederation(tmp_path / "federation", model)
    for name in ("silo-a", "silo-b"):
        federation.add_silo(name, Behaviour.HONEST)
    federation.found()
    for silo, contract in zip(federation.silos.values(), contracts, strict=True):
        silo.contract.data = contract.encode()
        federation.sign_contract(silo.name)
    return federation


def test_where_every_contract_is_of_plain_text_a_plan_is_made(
    tiny_model: Path, tmp_path: Path
) -> None:
    model = set_template(tiny_model, tmp_path / "model", None)
    plan = federation_with(tmp_path, model, PLAIN, PLAIN).open()
    assert plan.record.prompt_date is None


@pytest.mark.parametrize("other", [CHAT, "no contract that can be read"])
def test_one_contract_of_another_form_asks_for_a_template(
    tiny_model: Path, tmp_path: Path, other: str
) -> None:
    model = set_template(tiny_model, tmp_path / "model", None)
    federation = federation_with(tmp_path, model, PLAIN, other)
    with pytest.raises(FederationOperatorError, match="expected a chat template; found none"):
        federation.open()
