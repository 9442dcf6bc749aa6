"""A silo with a layout of its own: what it trains, and what it still measures for the run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.adapters.adapter_format import check_adapter
from data_contracts.adapters.starting_adapter import InitialAdapter, tensors_of
from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.adapter_layout import AdapterLayout, SiloLayout
from data_contracts.protocol.records.round_plan import ANY_DAY
from infra.disk.model_files import model_digest
from silo_agent.collaborators import GlobalAdapter
from silo_agent.config import SiloConfig
from silo_agent.gate.splits import Splits
from silo_agent.training.adapter_file import write_adapter
from silo_agent.training.job import EvaluatedAdapter
from silo_agent.training.jobs import BASE, LocalJobs, measured
from silo_agent.training.loss import Loss
from tests.aggregator.adapter_samples import dense
from tests.aggregator.federation_samples import federation
from tests.model_folders import write_model_folder
from tests.silo_agent.test_policy import EXACT, POLICY

PLAN = federation().plan.record
SILO, OTHER = PLAN.cohort[:2]
MODULES = tuple(target.module for target in PLAN.layout.targets)


def narrow_plan(digest: str, **changes: Any) -> RoundPlan:
    """The sample plan for a base model on disk, with a layout of its own for one silo."""
    model = PLAN.base_model.model_copy(update={"digest": digest})
    own = SiloLayout(silo=SILO, rank=1, alpha=1, modules=MODULES[:1])
    return PLAN.model_copy(update={"base_model": model, "silo_layouts": (own,), **changes})


@pytest.fixture
def digest(tmp_path: Path) -> str:
    model = write_model_folder(tmp_path / "model")
    digest = model_digest(model, tmp_path / "digests.json")
    text = POLICY.format(**{**EXACT, "digest": digest}).replace("/models/a", str(model))
    (tmp_path / "policy.toml").write_text(text)
    return digest


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    found = Splits(tmp_path / "train.jsonl", tmp_path / "heldout.jsonl")
    found.train.write_text("train")
    found.heldout.write_text("heldout")
    return found


def jobs_of(silo: str, plan: RoundPlan, home: Path) -> LocalJobs:
    """Jobs of a silo whose configuration is in `home`."""
    storage = {"endpoint_url": "http://127.0.0.1:1"}
    config = SiloConfig.model_validate(
        {
            "silo": silo,
            "federation": plan.federation,
            "storage": storage,
            "home": home,
            "policy": home / "policy.toml",
        }
    )
    return LocalJobs(config, plan)


def drawn_adapter(path: Path, layout: AdapterLayout) -> Path:
    """An adapter whose B is not zero."""
    tensors = tensors_of(InitialAdapter(layout))
    rng = np.random.default_rng(4)
    drawn = {n: t + rng.standard_normal(t.shape).astype(np.float32) for n, t in tensors.items()}
    write_adapter(path, layout, drawn)
    return path


def test_the_silo_trains_the_leading_part_of_the_starting_adapter(
    tmp_path: Path, digest: str, splits: Splits
) -> None:
    plan = narrow_plan(digest)
    start = GlobalAdapter(drawn_adapter(tmp_path / "start.safetensors", plan.layout))
    job = jobs_of(SILO, plan, tmp_path).training(start, splits)
    own = plan.layout_of(SILO)
    assert job.layout == own != plan.layout
    assert not job.measure_starting, "what it starts from is not the round's starting adapter"
    assert job.starting_adapter is not None and start.path is not None
    target = own.targets[0]
    a, b = check_adapter(job.starting_adapter, own).module(target)
    wide_a, wide_b = check_adapter(start.path, plan.layout).module(target)
    whole = plan.layout.scaling * wide_b[:, :1] @ wide_a[:1]
    assert own.scaling * b @ a == pytest.approx(whole, rel=1e-5)
    again = jobs_of(SILO, plan, tmp_path).training(start, splits)
    assert again.fingerprint() == job.fingerprint()


def test_what_its_layout_leaves_out_acts_beside_what_the_silo_trains(
    tmp_path: Path, digest: str, splits: Splits
) -> None:
    plan = narrow_plan(digest)
    start = GlobalAdapter(drawn_adapter(tmp_path / "start.safetensors", plan.layout))
    job = jobs_of(SILO, plan, tmp_path).training(start, splits)
    assert job.residual_layout == plan.layout
    assert job.starting_residual is not None and job.starting_adapter is not None
    assert start.path is not None
    wide = check_adapter(start.path, plan.layout)
    rest = check_adapter(job.starting_residual, plan.layout)
    own = check_adapter(job.starting_adapter, job.layout)
    for target in plan.layout.targets:
        trained = dense(own, target) if target in job.layout.targets else 0
        np.testing.assert_allclose(dense(rest, target) + trained, dense(wide, target), atol=1e-5)
    assert np.linalg.norm(dense(rest, job.layout.targets[0])) > 0
    other = drawn_adapter(tmp_path / "start.safetensors", plan.layout)
    rest_before = job.fingerprint()
    tensors = tensors_of(check_adapter(other, plan.layout))
    last = max(tensors)
    write_adapter(other, plan.layout, tensors | {last: tensors[last] * 2})
    assert jobs_of(SILO, plan, tmp_path).training(start, splits).fingerprint() != rest_before


def test_nothing_acts_beside_where_nothing_is_left_out(
    tmp_path: Path, digest: str, splits: Splits
) -> None:
    plan = narrow_plan(digest)
    start = GlobalAdapter(drawn_adapter(tmp_path / "start.safetensors", plan.layout))
    assert jobs_of(OTHER, plan, tmp_path).training(start, splits).starting_residual is None
    scaled = SiloLayout(silo=SILO, rank=plan.layout.rank, alpha=1, modules=None)
    plan = plan.model_copy(update={"silo_layouts": (scaled,)})
    job = jobs_of(SILO, plan, tmp_path).training(start, splits)
    assert (job.layout != plan.layout, job.starting_residual) == (True, None)
    first = narrow_plan(digest, starting_adapter=None)
    job = jobs_of(SILO, first, tmp_path).training(GlobalAdapter(None), splits)
    assert (job.starting_residual, job.residual_layout) == (None, None)


def test_a_silo_without_its_own_layout_trains_that_of_the_run(
    tmp_path: Path, digest: str, splits: Splits
) -> None:
    plan = narrow_plan(digest)
    start = GlobalAdapter(drawn_adapter(tmp_path / "start.safetensors", plan.layout))
    job = jobs_of(OTHER, plan, tmp_path).training(start, splits)
    assert (job.layout, job.starting_adapter) == (plan.layout, start.path)
    assert job.measure_starting


def test_round_1_starts_from_the_seed_in_every_layout(
    tmp_path: Path, digest: str, splits: Splits
) -> None:
    plan = narrow_plan(digest, starting_adapter=None)
    job = jobs_of(SILO, plan, tmp_path).training(GlobalAdapter(None), splits)
    assert (job.layout, job.starting_adapter) == (plan.layout_of(SILO), None)


def test_only_the_baseline_is_measured_in_the_layout_of_the_silo(
    tmp_path: Path, digest: str, splits: Splits
) -> None:
    plan = narrow_plan(digest)
    jobs = jobs_of(SILO, plan, tmp_path)
    assert jobs.silo_only() is None
    kept = jobs.silo_only_path(plan.round)
    kept.parent.mkdir(parents=True)
    drawn_adapter(kept, jobs.layout)
    silo_only = jobs.silo_only()
    assert silo_only is not None and silo_only.layout == jobs.layout
    job = jobs.evaluation((BASE, silo_only), splits.heldout)
    assert job.layout == plan.layout
    assert jobs_of(OTHER, plan, tmp_path).silo_only() is None, "it is of another layout"


def test_a_baseline_of_an_earlier_layout_starts_again(
    tmp_path: Path, digest: str, splits: Splits
) -> None:
    plan = narrow_plan(digest, round=2)
    jobs = jobs_of(SILO, plan, tmp_path)
    kept = jobs.silo_only_path(1)
    kept.parent.mkdir(parents=True)
    drawn_adapter(kept, plan.layout)
    assert jobs.training(GlobalAdapter(None), splits).silo_only.previous_adapter is None
    drawn_adapter(kept, jobs.layout)
    assert jobs.training(GlobalAdapter(None), splits).silo_only.previous_adapter == kept


def test_a_known_loss_is_one_of_adapter_residual_and_layout(
    tmp_path: Path, digest: str, splits: Splits
) -> None:
    plan = narrow_plan(digest)
    book = jobs_of(SILO, plan, tmp_path).book(splits.heldout)
    path = drawn_adapter(tmp_path / "a.safetensors", plan.layout)
    residual = drawn_adapter(tmp_path / "residual.safetensors", plan.layout_of(SILO))
    alone = measured("starting", GlobalAdapter(path))
    both = measured("starting", GlobalAdapter(path, residual))
    scaled = plan.layout.model_copy(update={"use_rslora": True})
    other = EvaluatedAdapter(name="starting", path=path, layout=scaled)
    book.put(alone, Loss(nats=1.0, tokens=9))
    assert (book.get(both), book.get(other)) == (None, None)
    book.put(both, Loss(nats=2.0, tokens=9))
    book.put(other, Loss(nats=3.0, tokens=9))
    renamed = alone.model_copy(update={"name": "candidate"})
    assert book.get(renamed) == Loss(nats=1.0, tokens=9)
    assert (book.get(both), book.get(other)) == (Loss(nats=2.0, tokens=9), Loss(nats=3.0, tokens=9))


def test_jobs_have_the_date_of_the_plan(digest: str, splits: Splits, tmp_path: Path) -> None:
    jobs = jobs_of(OTHER, narrow_plan(digest, prompt_date="2026-03-01"), tmp_path)
    assert jobs.training(GlobalAdapter(None), splits).prompt_date == "2026-03-01"
    assert jobs.evaluation((BASE,), splits.heldout).prompt_date == "2026-03-01"
    undated = jobs_of(OTHER, narrow_plan(digest), tmp_path)
    assert undated.evaluation((BASE,), splits.heldout).prompt_date == ANY_DAY


def test_losses_under_another_date_are_not_compared(
    digest: str, splits: Splits, tmp_path: Path
) -> None:
    for day, known in (("2026-03-01", None), ("2026-03-02", None), ("2026-03-01", 1.5)):
        book = jobs_of(OTHER, narrow_plan(digest, prompt_date=day), tmp_path).book(splits.heldout)
        found = book.get(BASE)
        assert (found and found.nats) == known
        book.put(BASE, Loss(nats=1.5, tokens=3))


def test_a_model_that_cannot_be_trained_is_refused_before_any_rank_starts(
    splits: Splits, tmp_path: Path
) -> None:
    quantised = {"quantization_config": {"quant_method": "gptq"}}
    model = write_model_folder(tmp_path / "model", config=quantised)
    named = model_digest(model)
    text = POLICY.format(**{**EXACT, "digest": named}).replace("/models/a", str(model))
    (tmp_path / "policy.toml").write_text(text)
    with pytest.raises(SiloOperatorError, match="quantised already: gptq"):
        jobs_of(OTHER, narrow_plan(named), tmp_path).evaluation((BASE,), splits.heldout)
