"""Real DeepSpeed ranks on the tiny model; the launches are shared, see `conftest`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.adapters.adapter_format import check_adapter
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet, TrainingJob
from silo_agent.training.loss import Loss, mean_loss
from silo_agent.training.processes.launch import run_evaluation, run_training
from silo_agent.training.processes.machine_launch import FORKED
from silo_agent.training.results import TrainingResult
from silo_agent.training.run_files import RunFiles, training_result
from tests.silo_agent.training.killed_agent import CREDENTIAL, Resumed
from tests.silo_agent.training.shared_ranks import finished, told
from tests.silo_agent.training.tiny_jobs import (
    SECOND_STEPS,
    STEPS,
    Jobs,
    TinySilo,
    one_by_one,
    shard_of,
)

pytestmark = pytest.mark.stack

TOLERANCE = 1e-5
OFFLOAD_TOLERANCE = 1e-6


def difference(first: Path, second: Path, layout: AdapterLayout) -> float:
    """Largest absolute difference between two adapters."""
    pairs = zip(
        check_adapter(first, layout).modules(), check_adapter(second, layout).modules(), strict=True
    )
    return max(
        float(np.abs(mine - yours).max())
        for (_, *one), (_, *other) in pairs
        for mine, yours in zip(one, other, strict=True)
    )


def norm_of_change(first: Path, second: Path | None, layout: AdapterLayout) -> float:
    """Of all numbers together; of what training makes of B, which is zero at first."""
    own = dict(_tensors(first, layout))
    other = dict(_tensors(second, layout)) if second else {}
    changes = [array - other.get(name, 0.0) for name, array in own.items() if second or "B" in name]
    return float(np.sqrt(sum(float((change**2).sum()) for change in changes)))


def _tensors(adapter: Path, layout: AdapterLayout) -> Iterator[tuple[str, Any]]:
    for module, a, b in check_adapter(adapter, layout).modules():
        yield f"{module} A", a
        yield f"{module} B", b


def nats(loss: Loss | None) -> float:
    """The mean of a loss that was measured."""
    assert loss is not None
    return loss.nats


def test_launcher_and_ranks_end_when_the_agent_is_killed(
    orphans: list[int], resumed: Resumed
) -> None:
    assert len(orphans) == 3
    assert resumed.gone == orphans


def test_nothing_listens_beyond_loopback(resumed: Resumed) -> None:
    while_training = resumed.watched.commands["training"]
    assert len(while_training) == 3, "the launcher, and what it forked"
    assert all({"-P", FORKED} <= set(command) for command in while_training)
    listening = {ip for addresses in resumed.watched.listening.values() for ip in addresses}
    assert listening <= {"127.0.0.1", "::1"}


def test_nothing_is_compiled(resumed: Resumed) -> None:
    assert "training" in resumed.watched.commands
    assert resumed.watched.compiled == set()


def test_credentials_of_the_agent_stay_with_it(resumed: Resumed) -> None:
    environments = resumed.watched.environments
    assert len(environments) >= 3
    assert not any(CREDENTIAL in environment for environment in environments)


def test_the_heap_of_every_process_keeps_no_ends_of_tensors_apart(resumed: Resumed) -> None:
    # glibc may have put an end in the place of the colon, as /proc shows it.
    told = [" ".join(map("=".join, each.items())) for each in resumed.watched.environments]
    assert len(told) >= 3
    assert all("GLIBC_TUNABLES=glibc.malloc.tcache_count=0" in each for each in told)
    assert all("glibc.malloc.mxfast=0" in each for each in told)


def test_training_lowers_the_heldout_loss(zero_2: TrainingResult, zero_2_job: TrainingJob) -> None:
    assert nats(zero_2.local) < nats(zero_2.starting) - 0.5
    assert told(zero_2.last_step_loss) < told(zero_2.first_step_loss) - 0.5
    assert zero_2.steps == STEPS
    assert 0.7 < zero_2.tokens / zero_2_job.recipe.tokens_per_round <= 1
    assert zero_2.local is not None and zero_2.local.tokens > 100


def test_first_round_starts_at_the_base_model_and_equals_the_baseline(
    zero_2: TrainingResult,
) -> None:
    assert zero_2.base == zero_2.starting
    assert zero_2.silo_only == zero_2.local
    assert zero_2.silo_only_adapter == zero_2.adapter


def test_losses_before_training_are_those_of_every_record_on_all_ranks(
    zero_2: TrainingResult, resumed: Resumed
) -> None:
    """The killed run of the second round measured them; they came out of its checkpoint."""
    for loss in (zero_2.base, zero_2.starting, resumed.result.base, resumed.result.starting):
        assert loss is not None
        assert len(loss.records) == 7
        assert sum(tokens for _, tokens in loss.records) == loss.tokens
        assert loss.nats == pytest.approx(mean_loss(loss.records), rel=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        *("zero-1", "zero-3", "one-rank", "one-rank-zero-3"),
        # Micro-batches of 3 and 1 sequences, and of 2.
        *("one-rank-in-threes", "zero-3-in-pairs"),
    ],
)
def test_stage_ranks_and_micro_batch_do_not_change_the_adapter(
    zero_2: TrainingResult, two_ranks: Jobs, one_rank: Jobs, name: str
) -> None:
    job = (one_rank | two_ranks)[name]
    result = finished(job)
    assert difference(result.adapter, zero_2.adapter, job.layout) < TOLERANCE
    assert nats(result.local) == pytest.approx(nats(zero_2.local), abs=TOLERANCE)
    assert result.first_step_loss == pytest.approx(zero_2.first_step_loss, abs=TOLERANCE)
    assert nats(result.starting) == pytest.approx(nats(zero_2.starting), abs=TOLERANCE)
    assert result.tokens == zero_2.tokens


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_used_engine_trains_the_very_adapter_of_a_new_one(two_ranks: Jobs, stage: int) -> None:
    fresh, between, again = (
        finished(two_ranks[f"zero-{stage}{suffix}"]) for suffix in ("", "-between", "-again")
    )
    assert again.adapter.read_bytes() == fresh.adapter.read_bytes() != between.adapter.read_bytes()
    exact = {"first_step_loss", "last_step_loss", "base", "starting", "local", "silo_only"}
    assert again.model_dump(include=exact) == fresh.model_dump(include=exact)
    assert fresh.first_step_loss != between.first_step_loss


@pytest.mark.parametrize("stage", [2, 3])
def test_activations_that_are_computed_again_train_the_very_same_adapter(
    two_ranks: Jobs, stage: int
) -> None:
    """At stage 2 after stage 3 in the same ranks, which leaves nothing of itself behind."""
    plain = finished(two_ranks[f"zero-{stage}"])
    saving = finished(two_ranks[f"zero-{stage}-checkpointing"])
    assert saving.adapter.read_bytes() == plain.adapter.read_bytes()
    assert saving.first_step_loss == plain.first_step_loss
    assert saving.last_step_loss == plain.last_step_loss


def test_parameters_that_are_elsewhere_train_the_same_adapter_but_for_rounding(
    two_ranks: Jobs,
) -> None:
    job = two_ranks["zero-3-offload"]
    offloaded, plain = finished(job).adapter, finished(two_ranks["zero-3"]).adapter
    assert difference(offloaded, plain, job.layout) < OFFLOAD_TOLERANCE


def test_a_proximal_term_is_that_of_the_step_whatever_the_micro_batch(one_rank: Jobs) -> None:
    job, alone = one_rank["one-rank-b-in-threes"], one_rank["one-rank-b"]
    found, expected = finished(job).adapter, finished(alone).adapter
    assert difference(found, expected, job.layout) < TOLERANCE


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bfloat16_trains_what_float32_does_but_for_rounding(two_ranks: Jobs, stage: int) -> None:
    """Measured: 0.0012 to 0.0019 of a loss of 5.98, and a tenth of what the factors moved."""
    job = two_ranks[f"zero-{stage}-bfloat16"]
    half, plain = finished(job), finished(two_ranks[f"zero-{stage}"])
    last = told(half.last_step_loss)
    assert 0 < abs(last - told(plain.last_step_loss)) < 0.005
    assert told(plain.first_step_loss) - last > 0.9, "it learns"
    moved = norm_of_change(plain.adapter, None, job.layout)
    assert 0 < norm_of_change(half.adapter, plain.adapter, job.layout) < 0.2 * moved
    assert (half.base, half.starting, half.local, half.silo_only) == (None,) * 4


def test_a_used_engine_in_bfloat16_gives_the_same_bits_again(two_ranks: Jobs) -> None:
    first, again = (
        finished(two_ranks[f"zero-2-bfloat16{end}"]).adapter.read_bytes() for end in ("", "-again")
    )
    assert first == again


@pytest.mark.parametrize(("name", "resumed_from"), [("half-by-time", 0), ("half-in-two-goes", 2)])
def test_half_of_the_steps_give_one_adapter_however_they_came_to_be_half(
    one_rank: Jobs, name: str, resumed_from: int
) -> None:
    """Steps that do not follow change nothing of those that were done."""
    half, cut = finished(one_rank["half"]), finished(one_rank[name])
    assert cut.adapter.read_bytes() == half.adapter.read_bytes()
    assert (cut.steps, cut.tokens) == (half.steps, half.tokens) == (STEPS // 2, half.tokens)
    assert cut.resumed_from_step == resumed_from
    assert cut.last_step_loss == half.last_step_loss
    recipe = one_rank[name].recipe
    assert 0 < cut.tokens <= recipe.tokens_in(cut.steps) < recipe.tokens_per_round
    assert cut.silo_only_adapter is None, "for which there was no time"


def test_a_baseline_for_which_there_is_no_time_costs_the_local_adapter_nothing(
    one_rank: Jobs,
) -> None:
    job = one_rank["no-time-for-a-baseline"]
    result = training_result(job, job.fingerprint())
    assert result is not None
    assert (result.steps, result.silo_only, result.silo_only_adapter) == (STEPS, None, None)


def test_two_ranks_end_after_the_same_step(one_rank: Jobs, two_ranks: Jobs) -> None:
    job = two_ranks["half-by-two"]
    half, cut = finished(one_rank["half"]), finished(job)
    assert (cut.steps, cut.tokens) == (half.steps, half.tokens)
    assert difference(cut.adapter, half.adapter, job.layout) < TOLERANCE


def test_training_went_on_from_the_checkpoint_of_the_killed_run(resumed: Resumed) -> None:
    assert 2 <= resumed.result.resumed_from_step < SECOND_STEPS


def test_a_finished_job_is_not_run_again(zero_2: TrainingResult, zero_2_job: TrainingJob) -> None:
    written = json.loads(RunFiles(zero_2_job.output_dir).result.read_bytes())["result"]
    assert TrainingResult.model_validate(written) == zero_2, "which no process was started for"
    assert run_training(zero_2_job, should_stop=lambda: True) == zero_2


def test_a_deadline_costs_the_baseline_and_the_next_call_trains_it_alone(
    two_ranks: Jobs, resumed: Resumed
) -> None:
    unfinished, result = resumed.result, finished(two_ranks["second-round"])
    assert unfinished.silo_only is None, "the deadline cost the baseline, not the round"
    assert unfinished.silo_only_adapter is None
    assert result.adapter.stat().st_mtime_ns == resumed.written_at_ns
    added = {"silo_only", "silo_only_adapter", "peak_rss_bytes_per_rank"}
    assert result.model_dump(exclude=added) == unfinished.model_dump(exclude=added)


def test_second_round_trains_the_baseline_from_its_own_past(
    zero_2: TrainingResult, one_rank: Jobs, two_ranks: Jobs
) -> None:
    job = two_ranks["second-round"]
    first, result = finished(one_rank["one-rank-zero-3"]), finished(job)
    assert nats(result.starting) == pytest.approx(nats(zero_2.local), abs=TOLERANCE)
    for other in (zero_2, first):
        assert nats(result.base) == pytest.approx(nats(other.base), abs=TOLERANCE)
        assert result.base is not None and other.base is not None
        for found, expected in zip(result.base.records, other.base.records, strict=True):
            assert found == pytest.approx(expected, rel=TOLERANCE), "also at another stage"
    assert result.starting is not None and result.base is not None
    before = [tokens for _, tokens in result.starting.records]
    assert before == [tokens for _, tokens in result.base.records]
    assert result.starting.nats == pytest.approx(mean_loss(result.starting.records))
    assert nats(result.local) < result.starting.nats
    assert nats(result.local) < nats(result.silo_only) < nats(zero_2.starting)
    assert result.silo_only_adapter is not None
    check_adapter(result.silo_only_adapter, job.layout)


def test_plain_peft_and_the_evaluation_see_what_training_measured(
    silo: TinySilo, zero_2: TrainingResult, zero_2_job: TrainingJob, tmp_path: Path
) -> None:
    job = EvaluationJob(
        model_dir=silo.model_dir,
        layout=zero_2_job.layout,
        adapters=(
            EvaluatedAdapter(name="base", path=None),
            EvaluatedAdapter(name="local", path=zero_2.adapter),
        ),
        heldout=(
            HeldoutSet(name="heldout", records=silo.heldout_records),
            HeldoutSet(name="train", records=silo.train_records),
        ),
        sequence_length=zero_2_job.recipe.sequence_length,
        heldout_sequences=zero_2_job.heldout_sequences,
        output_dir=tmp_path / "evaluation",
        per_record=True,
    )
    result = run_evaluation(job)
    local, base = result.loss("local", "heldout"), result.loss("base", "heldout")
    assert zero_2.local is not None and zero_2.base is not None
    assert local.nats == pytest.approx(zero_2.local.nats, abs=1e-5)
    assert local.tokens == zero_2.local.tokens
    assert base.nats == pytest.approx(zero_2.base.nats, abs=1e-5)
    for found, expected in zip(base.records, zero_2.base.records, strict=True):
        assert found == pytest.approx(expected, rel=TOLERANCE), "so the two can be paired"
    assert result.loss("local", "train").nats < result.loss("base", "train").nats
    assert run_evaluation(job, should_stop=lambda: True) == result
    in_peft = _loss_in_plain_peft(silo, zero_2_job, zero_2.adapter, tmp_path / "peft")
    assert in_peft == pytest.approx(zero_2.local.nats, abs=1e-5)


def test_a_model_that_mixes_conversations_gets_one_at_a_time(two_ranks: Jobs) -> None:
    job = two_ranks["mixing"]
    result = finished(job)
    assert not result.packing.together
    assert result.packing.conversations == STEPS * job.recipe.sequences_per_step
    assert nats(result.local) < nats(result.base) - 0.1
    base = one_by_one(job.model_dir, job.heldout_records, job.recipe.sequence_length)
    assert nats(result.base) == pytest.approx(mean_loss(base), rel=1e-5)
    said = RunFiles(job.output_dir).progress.read_text()
    assert "one conversation a sequence" in said


def test_a_model_that_keeps_them_apart_gets_as_many_as_fit(zero_2: TrainingResult) -> None:
    assert zero_2.packing.together
    assert zero_2.packing.conversations > STEPS * 4


def _loss_in_plain_peft(silo: TinySilo, job: TrainingJob, adapter: Path, directory: Path) -> float:
    """As a model user does it: `PeftModel.from_pretrained` and the model's own loss."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from silo_agent.training.ranks.packing import PackingRule, pack_heldout

    directory.mkdir()
    (directory / "adapter_model.safetensors").write_bytes(adapter.read_bytes())
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": job.layout.rank,
        "lora_alpha": job.layout.alpha,
        "target_modules": [target.module for target in job.layout.targets],
        "inference_mode": True,
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    base = AutoModelForCausalLM.from_pretrained(silo.model_dir, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, directory).eval()
    total, tokens = 0.0, 0
    for sequence in pack_heldout(
        shard_of(silo.model_dir, silo.heldout_records),
        PackingRule(job.recipe.sequence_length),
        limit=job.heldout_sequences,
        seed=job.layout.seed,
    ):
        with torch.no_grad():
            loss = model(
                input_ids=torch.tensor([sequence.token_ids]),
                position_ids=torch.tensor([sequence.positions]),
                labels=torch.tensor([sequence.labels]),
                use_cache=False,
            ).loss
        total += loss.item() * sequence.answer_tokens
        tokens += sequence.answer_tokens
    return total / tokens
