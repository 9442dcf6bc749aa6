"""Personal adapters of other families than causal models, in two real ranks."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_contracts.protocol.records.model_family import ModelFamily
from silo_agent.personal.job import Beside, personal_job
from silo_agent.personal_settings import PersonalSection
from silo_agent.training.processes.launch import run_training
from silo_agent.training.processes.resident_ranks import ResidentRanks
from tests.silo_agent.families.test_families_in_ranks import family_job, material
from tests.silo_agent.training.shared_ranks import KEEP_SECONDS

pytestmark = [pytest.mark.long, pytest.mark.stack]

FAR = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ResidentRanks]:
    group = ResidentRanks(tmp_path_factory.mktemp("personal ranks"), KEEP_SECONDS)
    yield group
    group.end()


@pytest.mark.parametrize("family", ["sequence-classification", "dual-encoder"])
def test_it_is_better_at_home_and_acts_on_everything(
    family: ModelFamily, tmp_path: Path, ranks: ResidentRanks
) -> None:
    _, train, heldout = material(tmp_path, family)
    federated = family_job(
        tmp_path,
        family,
        train_records=train,
        heldout_records=heldout,
        output_dir=tmp_path / "federated",
        zero_stage=2,
        ranks=2,
    )
    of_all = run_training(federated, ranks=ranks)
    assert of_all.local is not None
    for method in ("dual", "ditto"):
        update = {
            "starting_adapter": of_all.adapter,
            "round": 2,
            "output_dir": tmp_path / method,
            "measure_base": False,
        }
        is_dual = method == "dual"
        beside = Beside(of_all.adapter, federated.layout) if is_dual else Beside(None, None)
        section = PersonalSection.model_validate({"method": method})
        job = personal_job(federated.model_copy(update=update), section, beside, None, FAR)
        assert (not job.layout.wholes) == is_dual or family == "dual-encoder"
        measures = run_training(job, ranks=ranks).personal
        assert measures is not None and measures.gate is None
        assert measures.used == measures.own
        assert measures.own.nats < of_all.local.nats, method
