import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from data_contracts.errors import (
    ConsortiaError,
    DataStewardError,
    FederationOperatorError,
    SiloOperatorError,
    UntrustedInputError,
)
from data_contracts.protocol.records.model_family import FamilyTask
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet, TrainingJob
from silo_agent.training.prompt_gate import PromptGate
from silo_agent.training.results import (
    EvaluationResult,
    HeldoutLoss,
    PackingCounts,
    Progress,
    TrainingResult,
)
from silo_agent.training.run_files import (
    ProgressReader,
    ProgressWriter,
    RunFiles,
    StepMeter,
    read_failure,
    read_result,
    training_result,
    write_failure,
    write_result,
)
from tests.silo_agent.training.tiny_jobs import TinySilo, tiny_recipe
from tests.tiny_model import tiny_adapter_layout, write_records


def test_job_survives_json(silo: TinySilo) -> None:
    job = silo.job("any")
    assert TrainingJob.model_validate_json(job.model_dump_json()) == job


def test_ranks_must_divide_the_sequences_of_a_step(silo: TinySilo) -> None:
    with pytest.raises(ValidationError, match="to be a multiple of ranks"):
        silo.job("any", ranks=3)
    assert silo.job("any", ranks=2).engine.sequences_per_rank == 2


def test_a_gate_is_for_an_adapter_of_a_causal_model(tmp_path: Path) -> None:
    gate = PromptGate(centre=(1.0, 0.5), threshold=0.25)
    gated = EvaluatedAdapter(name="own", path=tmp_path / "own", gate=gate)
    heldout = HeldoutSet(name="home", records=tmp_path / "heldout")
    fields: dict[str, Any] = {
        "model_dir": tmp_path,
        "layout": tiny_adapter_layout(),
        "adapters": (gated,),
        "heldout": (heldout,),
        "sequence_length": 96,
        "heldout_sequences": 8,
        "output_dir": tmp_path,
    }
    job = EvaluationJob(**fields)
    assert EvaluationJob.model_validate_json(job.model_dump_json()) == job
    assert "gate" not in EvaluatedAdapter(name="all", path=None).model_dump_json()
    for changes in (
        {"adapters": (gated.model_copy(update={"path": None}),)},
        {"task": FamilyTask(family="masked-lm")},
    ):
        with pytest.raises(ValidationError, match="expected gates beside adapters of causal-lm"):
            EvaluationJob(**(fields | changes))


def test_fingerprint_covers_recipe_and_data_but_not_threads(silo: TinySilo, tmp_path: Path) -> None:
    records = write_records(tmp_path / "records.jsonl", 3)
    job = silo.job("any", train_records=records)
    same = silo.job("any", train_records=records, threads_per_rank=5, checkpoint_every_steps=9)
    other = silo.job("any", train_records=records, recipe=tiny_recipe(local_steps=3))
    before = job.fingerprint()
    assert same.fingerprint() == before != other.fingerprint()
    write_records(records, 4)
    assert job.fingerprint() != before


def test_a_result_counts_with_the_steps_that_its_job_needs(silo: TinySilo) -> None:
    """Which are no part of the fingerprint: what was done with another least is not done again."""
    job = silo.job("counted")
    job.output_dir.mkdir()
    lesser = job.model_copy(update={"least_steps": 3, "end_by": datetime(2026, 3, 2, tzinfo=UTC)})
    assert TrainingJob.model_validate_json(lesser.model_dump_json()) == lesser
    assert (job.fewest_steps, lesser.fewest_steps) == (8, 3)
    fingerprint = job.fingerprint()
    assert lesser.fingerprint() == fingerprint
    for steps, counts in ((2, []), (3, [lesser]), (7, [lesser]), (8, [lesser, job])):
        write_result(RunFiles(job.output_dir).result, result_of(job, steps), fingerprint)
        assert [j for j in (lesser, job) if training_result(j, fingerprint)] == counts, steps
    assert training_result(lesser, "another") is None


def result_of(job: TrainingJob, steps: int) -> TrainingResult:
    packing = PackingCounts(conversations=1, truncated=0, skipped=0, passes=1)
    return TrainingResult(
        adapter=RunFiles(job.output_dir).adapter,
        tokens=1,
        steps=steps,
        resumed_from_step=0,
        first_step_loss=2.0,
        last_step_loss=1.0,
        seconds=1.0,
        tokens_per_second=1.0,
        peak_rss_bytes_per_rank=1,
        packing=packing,
    )


def test_a_missing_file_is_named(silo: TinySilo, tmp_path: Path) -> None:
    job = silo.job("any", train_records=tmp_path / "absent.jsonl")
    with pytest.raises(SiloOperatorError, match=r"absent\.jsonl: expected a readable file"):
        job.fingerprint()


def test_evaluation_names_are_distinct(silo: TinySilo) -> None:
    base = EvaluatedAdapter(name="base", path=None)
    with pytest.raises(ValidationError, match="names of adapters"):
        EvaluationJob(
            model_dir=silo.model_dir,
            layout=tiny_adapter_layout(),
            adapters=(base, base),
            heldout=(HeldoutSet(name="own", records=silo.heldout_records),),
            sequence_length=96,
            heldout_sequences=2,
            output_dir=silo.root / "any",
        )


@pytest.mark.parametrize(
    "kind", [ConsortiaError, DataStewardError, FederationOperatorError, SiloOperatorError]
)
def test_a_reported_failure_keeps_its_kind(tmp_path: Path, kind: type[ConsortiaError]) -> None:
    error = kind("thing", expected="this", found="that", action="do it")
    write_failure(tmp_path / "failure.json", error)
    read = read_failure(tmp_path / "failure.json")
    assert (type(read), str(read)) == (kind, str(error))


def test_a_rejected_adapter_keeps_its_rule(tmp_path: Path) -> None:
    error = UntrustedInputError(
        "adapter", expected="a", found="b", action="c", rule="adapter.wrong_names"
    )
    write_failure(tmp_path / "failure.json", error)
    read = read_failure(tmp_path / "failure.json")
    assert isinstance(read, UntrustedInputError)
    assert read.rule == "adapter.wrong_names"
    assert read_failure(tmp_path / "absent.json") is None


def test_a_result_answers_one_job_only(tmp_path: Path) -> None:
    loss = HeldoutLoss(adapter="base", heldout="own", nats=1.5, tokens=3)
    result = EvaluationResult(losses=(loss,), seconds=1.0)
    write_result(tmp_path / "result.json", result, "a" * 64)
    assert read_result(tmp_path / "result.json", EvaluationResult, "a" * 64) == result
    assert read_result(tmp_path / "result.json", EvaluationResult, "b" * 64) is None
    (tmp_path / "result.json").write_text("{")
    assert read_result(tmp_path / "result.json", EvaluationResult, "a" * 64) is None


OF_AN_EARLIER_VERSION: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (
        TrainingResult,
        {
            "adapter": "/srv/silo/work/adapter.safetensors",
            "tokens": 900,
            "steps": 8,
            "resumed_from_step": 0,
            "first_step_loss": 3.5,
            "last_step_loss": 2.5,
            "seconds": 4.0,
            "tokens_per_second": 225.0,
            "peak_rss_bytes_per_rank": 1,
            "packing": {"conversations": 9, "truncated": 0, "skipped": 0, "passes": 1},
            "base_loss": 3.0,
            "starting_loss": 3.0,
            "local_loss": None,
            "silo_only_loss": None,
            "silo_only_adapter": None,
            "heldout_tokens": 30,
            "base_records": [[90.0, 30]],
            "starting_records": [[90.0, 30]],
        },
    ),
    (
        EvaluationResult,
        {
            "losses": [{"adapter": "base", "heldout": "own", "loss": 3.0, "tokens": 30}],
            "seconds": 1.0,
        },
    ),
]


@pytest.mark.parametrize(("kind", "result"), OF_AN_EARLIER_VERSION)
def test_a_result_of_an_earlier_version_is_none_so_that_the_job_is_done_again(
    tmp_path: Path, kind: type[BaseModel], result: dict[str, Any]
) -> None:
    """A program is upgraded between a result and what is made of it: no error, the work again."""
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"fingerprint": "a" * 64, "result": result}))
    assert read_result(path, kind, "a" * 64) is None


def test_unfinished_and_foreign_progress_lines_wait_or_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    writer, reader = ProgressWriter(path), ProgressReader(path)
    assert reader.new() == []
    writer.phase("packing")
    line = Progress(phase="training", step=1, steps=2).model_dump_json()
    with path.open("a") as file:
        file.write("something else\n" + line[:9])
    assert [p.phase for p in reader.new()] == ["packing"]
    with path.open("a") as file:
        file.write(line[9:] + "\n")
    assert [(p.phase, p.step) for p in reader.new()] == [("training", 1)]
    assert reader.new() == []


def test_lines_say_what_the_first_rank_has_had_on_its_gpu(tmp_path: Path) -> None:
    path, had = tmp_path / "progress.jsonl", iter([7, 9])
    writer, reader = ProgressWriter(path, lambda: next(had)), ProgressReader(path)
    writer.phase("packing")
    writer.report(Progress(phase="training", step=1, steps=2))
    assert [progress.gpu_memory_bytes for progress in reader.new()] == [7, 9]
    ProgressWriter(path).phase("loading")
    ProgressWriter(None, lambda: next(had)).phase("another rank, which is not asked")
    assert [progress.gpu_memory_bytes for progress in reader.new()] == [None]


def test_meter_counts_only_the_steps_of_this_run() -> None:
    meter = StepMeter("training", first_step=4, steps=6)
    progress = meter.after(5, 2.0, 100)
    assert progress.eta_seconds is not None and progress.eta_seconds < 1
    assert meter.after(6, 1.0, 100).eta_seconds == 0


def test_output_directory_is_private_and_old_reports_are_gone(tmp_path: Path) -> None:
    files = RunFiles(tmp_path / "out")
    files.directory.mkdir(mode=0o755)
    files.failure.write_text(json.dumps({}))
    files.prepare()
    assert stat.S_IMODE(files.directory.stat().st_mode) == 0o700
    assert not files.failure.exists()


def test_what_is_measured_does_not_decide_whether_a_result_is_reused(silo: TinySilo) -> None:
    """A retry knows some losses already and asks for fewer; it must not train again for that."""
    job = silo.job("measured")
    fewer = job.model_copy(
        update={"measure_base": False, "measure_starting": False, "measure_local": False}
    )
    assert job.fingerprint() == fewer.fingerprint()
    assert job.fingerprint() != job.model_copy(update={"round": 9}).fingerprint()


def test_a_residual_needs_its_layout_and_decides_the_outcome(
    silo: TinySilo, tmp_path: Path
) -> None:
    residual = tmp_path / "residual.safetensors"
    residual.write_bytes(b"one")
    with pytest.raises(ValidationError, match="expected residual_layout"):
        silo.job("any", starting_residual=residual)
    job = silo.job("any", starting_residual=residual, residual_layout=tiny_adapter_layout(rank=2))
    measured = EvaluatedAdapter(name="starting", path=None, residual=residual)
    fields = {
        "model_dir": silo.model_dir,
        "layout": tiny_adapter_layout(),
        "adapters": (measured,),
        "heldout": (HeldoutSet(name="own", records=silo.heldout_records),),
        "sequence_length": 96,
        "heldout_sequences": 2,
        "output_dir": silo.root / "any",
    }
    with pytest.raises(ValidationError, match="expected residual_layout"):
        EvaluationJob.model_validate(fields)
    evaluation = EvaluationJob.model_validate({**fields, "residual_layout": tiny_adapter_layout()})
    before = (job.fingerprint(), evaluation.fingerprint())
    residual.write_bytes(b"other")
    after = (job.fingerprint(), evaluation.fingerprint())
    assert not set(before) & set(after)
