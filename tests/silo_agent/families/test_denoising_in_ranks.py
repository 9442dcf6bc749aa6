"""Ranks train a UNet as a loop over diffusers' own parts does, whatever the settings are."""

from pathlib import Path

import numpy as np
import pytest

from data_contracts.adapters.adapter_format import check_adapter
from data_contracts.adapters.starting_adapter import tensors_of
from silo_agent.training.processes.resident_ranks import ResidentRanks
from silo_agent.training.results import TrainingResult
from silo_agent.training.run_files import RunFiles
from tests.silo_agent.families.tiny_denoising import (
    OwnParts,
    PictureSilo,
    heldout_of,
    make_picture_silo,
    sequences_of,
)
from tests.silo_agent.training.shared_ranks import KEEP_SECONDS, finished, train_in_shared_ranks

pytestmark = [pytest.mark.long, pytest.mark.stack]

SETTINGS = {
    "zero-1": {"zero_stage": 1},
    "zero-2-in-pairs": {"zero_stage": 2, "micro_batch": 2},
    "zero-2-saving": {"zero_stage": 2, "gradient_checkpointing": True},
    "zero-3": {"zero_stage": 3},
    "zero-3-saving": {"zero_stage": 3, "gradient_checkpointing": True, "micro_batch": 2},
}


@pytest.fixture(scope="module")
def silo(tmp_path_factory: pytest.TempPathFactory) -> PictureSilo:
    return make_picture_silo(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def results(silo: PictureSilo) -> dict[str, TrainingResult]:
    """What two ranks come to with each of the settings, one job after the other."""
    jobs = [silo.job(name, **changes) for name, changes in SETTINGS.items()]
    ranks = ResidentRanks(silo.root, KEEP_SECONDS)
    try:
        error = train_in_shared_ranks(jobs, ranks)
    finally:
        ranks.end()
    assert error is None, str(error)
    return {job.output_dir.name: finished(job) for job in jobs}


@pytest.fixture(scope="module")
def expected(silo: PictureSilo) -> tuple[dict[str, np.ndarray], float, float]:
    """The adapter, and held-out losses before and after, by diffusers' own parts."""
    train, heldout = sequences_of(silo), heldout_of(silo)
    own = OwnParts(silo)
    own.put(silo, None)
    before = own.errors(heldout).mean().item()
    own.train(train)
    after = own.errors(heldout).mean().item()
    return {n: p.detach().numpy().copy() for n, p in own.parameters.items()}, before, after


@pytest.mark.parametrize("name", SETTINGS)
def test_the_adapter_is_that_of_the_plain_loop(
    name: str,
    silo: PictureSilo,
    results: dict[str, TrainingResult],
    expected: tuple[dict[str, np.ndarray], float, float],
) -> None:
    adapter, before, after = expected
    result = results[name]
    found = tensors_of(check_adapter(Path(RunFiles(silo.root / name).adapter), silo.layout))
    assert found.keys() == adapter.keys()
    moved = max(abs(adapter[n]).max() for n in adapter if ".lora_B." in n)
    worst = max(abs(found[n] - adapter[n]).max() for n in adapter)
    assert moved > 0.01 and worst < 1e-4, (moved, worst)
    assert result.micro_batch == SETTINGS[name].get("micro_batch", 1)
    assert result.starting is not None and result.local is not None
    assert result.starting.nats == pytest.approx(before, rel=1e-5)
    assert result.local.nats == pytest.approx(after, rel=1e-4)
    assert result.local.tokens == 5, "a picture counts 1"
    assert after < before
