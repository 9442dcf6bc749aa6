"""Real DeepSpeed ranks on the tiny model; each launch takes some seconds, so runs are shared."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psutil
import pytest

from data_contracts.adapters.adapter_format import check_adapter
from data_contracts.protocol.records.round_plan import AdapterLayout
from infra.clock import SystemClock
from silo_agent.training.job import (
    EvaluatedAdapter,
    EvaluationJob,
    HeldoutSet,
    Progress,
    SiloOnlyBaseline,
    TrainingJob,
    TrainingResult,
)
from silo_agent.training.processes.launch import run_evaluation, run_training
from silo_agent.training.ranks.record_sums import mean_loss
from silo_agent.training.run_files import RunFiles
from tests.silo_agent.training.shared_ranks import (
    measured,
    train_in_one_rank,
    train_in_shared_ranks,
)
from tests.silo_agent.training.tiny_jobs import STEPS, TinySilo, job_processes

pytestmark = pytest.mark.stack

TOLERANCE = 1e-5
DEADLINE = datetime(2030, 1, 1, tzinfo=UTC)
AGENT = """
import os, signal, sys
from pathlib import Path
import psutil
from silo_agent.training.job import TrainingJob
from silo_agent.training.processes.launch import run_training

def die_at_step_3(progress):
    if progress.step >= 3:
        processes = psutil.Process().children(recursive=True)
        print(*(process.pid for process in processes), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

job = TrainingJob.model_validate_json(Path(sys.argv[1]).read_bytes())
run_training(job, on_progress=die_at_step_3)
"""


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


class BaselineClock(SystemClock):
    """Passes the deadline as soon as the silo-only baseline begins."""

    def __init__(self) -> None:
        self.in_baseline = False

    def note(self, progress: Progress) -> None:
        """See whether the baseline has begun."""
        self.in_baseline = self.in_baseline or progress.phase.startswith("silo-only")

    def now(self) -> datetime:
        """Just past the deadline, or long before it."""
        return DEADLINE + timedelta(days=1 if self.in_baseline else -1)


@dataclass
class Watched:
    """What could be seen of a job's processes while it ran, by name of the phase."""

    commands: dict[str, list[list[str]]] = field(default_factory=dict)
    environments: list[dict[str, str]] = field(default_factory=list)
    listening: dict[str, list[str]] = field(default_factory=dict)
    compiled: set[str] = field(default_factory=set)

    def note(self, progress: Progress) -> None:
        """Look at every process of the job; of one that is just ending nothing is noted."""
        for process in job_processes(psutil.Process()):
            try:
                connections = process.net_connections(kind="inet")
                command, environment = process.cmdline(), process.environ()
            except psutil.Error:
                continue
            self.commands.setdefault(progress.phase, []).append(command)
            self.environments.append(environment)
            addresses = [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]
            self.listening.setdefault(progress.phase, []).extend(addresses)
            extensions = Path(environment["TORCH_EXTENSIONS_DIR"])
            self.compiled.update(path.name for path in extensions.rglob("*"))


@pytest.fixture(scope="module")
def zero_2_job(silo: TinySilo) -> TrainingJob:
    baseline = SiloOnlyBaseline(enabled=True)
    return silo.job(
        "zero-2", zero_stage=2, measure_base=True, silo_only=baseline, checkpoint_every_steps=2
    )


@pytest.fixture(scope="module")
def orphans(silo: TinySilo, zero_2_job: TrainingJob) -> list[int]:
    """Process ids that an agent left when it was killed at step 3 of `zero_2_job`."""
    path = silo.root / "orphans.json"
    path.write_text(zero_2_job.model_dump_json())
    # A killed agent cannot remove its temporary directory.
    environment = {**os.environ, "TMPDIR": str(silo.root)}
    agent = subprocess.run(
        [sys.executable, "-c", AGENT, str(path)], stdout=subprocess.PIPE, env=environment
    )
    return [int(pid) for pid in agent.stdout.split()]


@pytest.fixture(scope="module")
def gone(orphans: list[int]) -> list[int]:
    """The orphans that ended within five seconds."""
    processes = [psutil.Process(pid) for pid in orphans if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(processes, timeout=5)
    return [pid for pid in orphans if pid not in {process.pid for process in alive}]


@pytest.fixture(scope="module")
def watched() -> Watched:
    return Watched()


@pytest.fixture(scope="module")
def zero_2(zero_2_job: TrainingJob, gone: list[int], watched: Watched) -> TrainingResult:
    """Begun by the agent that was killed, finished by this one."""
    os.environ["CONSORTIA_CREDENTIAL"] = "of the agent alone"
    try:
        return run_training(zero_2_job, on_progress=watched.note)
    finally:
        del os.environ["CONSORTIA_CREDENTIAL"]


def test_torchrun_and_ranks_end_when_the_agent_is_killed(
    orphans: list[int], gone: list[int]
) -> None:
    assert len(orphans) == 3
    assert gone == orphans


def test_nothing_listens_beyond_loopback(zero_2: TrainingResult, watched: Watched) -> None:
    while_training = watched.commands["training"]
    assert any("torch.distributed.run" in command for command in while_training)
    ranks = [command for command in while_training if "torch.distributed.run" not in command]
    assert len(ranks) >= 2 and all("-P" in command for command in ranks)
    listening = {ip for addresses in watched.listening.values() for ip in addresses}
    assert listening <= {"127.0.0.1", "::1"}


def test_nothing_is_compiled(zero_2: TrainingResult, watched: Watched) -> None:
    assert "training" in watched.commands
    assert watched.compiled == set()


def test_credentials_of_the_agent_stay_with_it(zero_2: TrainingResult, watched: Watched) -> None:
    assert len(watched.environments) >= 3
    assert not any("CONSORTIA_CREDENTIAL" in environment for environment in watched.environments)


def test_training_lowers_the_heldout_loss(zero_2: TrainingResult, zero_2_job: TrainingJob) -> None:
    assert zero_2.local_loss is not None and zero_2.starting_loss is not None
    assert zero_2.local_loss < zero_2.starting_loss - 0.5
    assert zero_2.last_step_loss < zero_2.first_step_loss - 0.5
    assert zero_2.steps == STEPS
    assert 0.7 < zero_2.tokens / zero_2_job.recipe.tokens_per_round <= 1
    assert zero_2.heldout_tokens > 100


def test_first_round_starts_at_the_base_model_and_equals_the_baseline(
    zero_2: TrainingResult,
) -> None:
    assert zero_2.base_loss == zero_2.starting_loss
    assert zero_2.silo_only_loss == zero_2.local_loss
    assert zero_2.silo_only_adapter == zero_2.adapter


def test_losses_before_training_are_those_of_every_record_on_all_ranks(
    zero_2: TrainingResult,
) -> None:
    """The killed run measured them; they came out of its checkpoint."""
    assert zero_2.base_records == zero_2.starting_records
    assert len(zero_2.base_records) == 7
    assert sum(tokens for _, tokens in zero_2.base_records) == zero_2.heldout_tokens
    assert zero_2.base_loss == pytest.approx(mean_loss(zero_2.base_records), rel=1e-12)


@pytest.fixture(scope="module")
def others(silo: TinySilo) -> dict[str, TrainingJob]:
    """The job of `zero_2` at the other stages in two ranks, and at its own in one."""
    other_stages = [silo.job(f"zero-{stage}", zero_stage=stage) for stage in (1, 3)]
    one_rank = silo.job("one-rank", ranks=1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        train_in_shared_ranks(other_stages, silo.root, monkeypatch)
    train_in_one_rank([one_rank], silo.root)
    return {job.output_dir.name: job for job in (*other_stages, one_rank)}


@pytest.mark.parametrize("name", ["zero-1", "zero-3", "one-rank"])
def test_stage_and_ranks_do_not_change_the_adapter(
    zero_2: TrainingResult, others: dict[str, TrainingJob], name: str
) -> None:
    job, result = others[name], measured(others[name])
    adapter = RunFiles(job.output_dir).adapter
    assert difference(adapter, zero_2.adapter, job.layout) < TOLERANCE
    assert result.local_loss == pytest.approx(zero_2.local_loss, abs=TOLERANCE)
    assert result.first_step_loss == pytest.approx(zero_2.first_step_loss, abs=TOLERANCE)
    assert result.starting_loss == pytest.approx(zero_2.starting_loss, abs=TOLERANCE)
    assert result.tokens == zero_2.tokens


def test_training_went_on_from_the_checkpoint_of_the_killed_run(zero_2: TrainingResult) -> None:
    assert 2 <= zero_2.resumed_from_step < STEPS


def test_a_finished_job_is_not_run_again(zero_2: TrainingResult, zero_2_job: TrainingJob) -> None:
    assert run_training(zero_2_job, should_stop=lambda: True) == zero_2


def test_second_round_trains_the_baseline_from_its_own_past(
    silo: TinySilo, zero_2: TrainingResult
) -> None:
    job = silo.job(
        "second-round",
        round=2,
        ranks=1,
        zero_stage=3,
        measure_base=True,
        starting_adapter=zero_2.adapter,
        silo_only=SiloOnlyBaseline(enabled=True, previous_adapter=None),
    )
    clock = BaselineClock()
    unfinished = run_training(job, on_progress=clock.note, deadline=DEADLINE, clock=clock)
    assert unfinished.silo_only_loss is None, "the deadline cost the baseline, not the round"
    written_at = unfinished.adapter.stat().st_mtime_ns
    result = run_training(job)
    assert result.adapter.stat().st_mtime_ns == written_at
    assert result.starting_loss == pytest.approx(zero_2.local_loss, abs=TOLERANCE)
    assert result.base_loss == pytest.approx(zero_2.base_loss, abs=TOLERANCE)
    for found, expected in zip(result.base_records, zero_2.base_records, strict=True):
        assert found == pytest.approx(expected, rel=TOLERANCE), "at another stage and in one rank"
    assert [tokens for _, tokens in result.starting_records] == [t for _, t in result.base_records]
    assert result.starting_loss == pytest.approx(mean_loss(result.starting_records))
    assert result.local_loss is not None and result.starting_loss is not None
    assert result.local_loss < result.starting_loss
    assert result.silo_only_loss is not None and result.silo_only_adapter is not None
    assert zero_2.starting_loss is not None
    assert result.local_loss < result.silo_only_loss < zero_2.starting_loss
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
    local = result.loss("local", "heldout")
    assert local.loss == pytest.approx(zero_2.local_loss, abs=1e-5)
    assert local.tokens == zero_2.heldout_tokens
    assert result.loss("base", "heldout").loss == pytest.approx(zero_2.base_loss, abs=1e-5)
    for found, expected in zip(
        result.loss("base", "heldout").records, zero_2.base_records, strict=True
    ):
        assert found == pytest.approx(expected, rel=TOLERANCE), "so the two can be paired"
    assert result.loss("local", "train").loss < result.loss("base", "train").loss
    assert run_evaluation(job, should_stop=lambda: True) == result
    in_peft = _loss_in_plain_peft(silo, zero_2_job, zero_2.adapter, tmp_path / "peft")
    assert in_peft == pytest.approx(zero_2.local_loss, abs=1e-5)


def _loss_in_plain_peft(silo: TinySilo, job: TrainingJob, adapter: Path, directory: Path) -> float:
    """As a model user does it: `PeftModel.from_pretrained` and the model's own loss."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from silo_agent.training.ranks.lora_model import load_tokenizer
    from silo_agent.training.ranks.packing import pack_heldout

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
    tokenizer = load_tokenizer(silo.model_dir)
    total, tokens = 0.0, 0
    for sequence in pack_heldout(
        tokenizer,
        silo.heldout_records,
        length=job.recipe.sequence_length,
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
