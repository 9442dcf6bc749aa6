"""Which precision a silo trains in, and that what it measured once stays."""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import SiloOperatorError
from silo_agent.config import TrainingSection, parse_config
from silo_agent.training.precision import (
    MOST_SHARE,
    PRECISION_NAME,
    Machine,
    Outcome,
    Seconds,
    _gpu_names,
    chosen_of,
    chosen_precision,
    held_as,
    held_words,
    kept,
    lacks_bfloat16,
    measure,
    measured,
    measured_words,
)
from tests.silo_agent.training.test_memory_plan import config_with

HERE = Machine(device="cpu", processor="a processor", torch="2.0", threads=1)
GPU = HERE.model_copy(update={"device": "cuda"})
ON_NODES: dict[str, Any] = {
    "nodes": {"launcher": "hosts", "count": 2, "interface": "ib0"},
    "device": "cuda",
}


@pytest.mark.parametrize(
    ("bfloat16", "chosen"),
    [(0.1, "bfloat16"), (0.75, "bfloat16"), (0.76, "float32"), (1.0, "float32"), (25.0, "float32")],
)
def test_bfloat16_is_taken_only_where_it_is_clearly_faster(bfloat16: float, chosen: str) -> None:
    assert MOST_SHARE == 0.75
    found = chosen_of(Outcome(machine=HERE, seconds=Seconds(float32=1.0, bfloat16=bfloat16)))
    assert found.precision == chosen
    assert f"{1 / bfloat16:.2f} times the speed of float32" in found.reason
    assert ("1.33 are asked for" in found.reason) is (chosen == "float32")


@pytest.mark.parametrize(("machine", "usual"), [(HERE, "float32"), (GPU, "bfloat16")])
def test_what_could_not_be_measured_is_as_the_device_has_it(machine: Machine, usual: str) -> None:
    found = chosen_of(Outcome(machine=machine, seconds=None, fault="no memory"))
    assert (found.precision, found.reason) == (usual, "it could not be measured: no memory")


def test_what_was_measured_stays_until_the_machine_is_another(tmp_path: Path) -> None:
    """Nothing else changes it: a second measurement would start a process, and say otherwise."""
    path = tmp_path / PRECISION_NAME
    fast = Outcome(machine=HERE, seconds=Seconds(float32=1.0, bfloat16=0.5))
    path.write_text(fast.model_dump_json())
    assert [measured(path, HERE) for _ in range(2)] == [fast, fast]
    assert measured_words(tmp_path) == (
        "measured here: bfloat16 has 2.00 times the speed of float32 (a processor)"
    )
    no_torch = HERE.model_copy(update={"device": "cuda", "torch": "2.1"})
    again = measured(path, no_torch)
    assert again.machine == no_torch and again != fast
    assert kept(path) == again, "also where it could not be: it is not tried in every round"


@pytest.mark.parametrize("text", ["", "{}", '{"machine": 1}', '{"machine": {}, "seconds": null}'])
def test_a_file_that_cannot_be_read_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / PRECISION_NAME).write_text(text)
    assert kept(tmp_path / PRECISION_NAME) is None
    assert measured_words(tmp_path) is None
    assert kept(tmp_path / "absent.json") is None


def driver_that_says(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of the driver's name, first in the path, in the place of the driver's own."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    _gpu_names.cache_clear()


def test_a_driver_that_does_not_answer_for_a_moment_changes_no_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_with(TrainingSection(device="cuda"), tmp_path)
    bin_folder = tmp_path / "bin"
    driver_that_says(bin_folder, "exit 9", monkeypatch)
    assert chosen_precision(config).precision == "bfloat16"
    assert not (tmp_path / PRECISION_NAME).exists()
    machine = Machine(device="cuda", processor="T4, 535", torch=version("torch"), threads=1)
    slow = Outcome(machine=machine, seconds=Seconds(float32=1.0, bfloat16=2.0))
    (tmp_path / PRECISION_NAME).write_text(slow.model_dump_json())
    assert chosen_precision(config) == chosen_of(slow), "what counted until now"
    driver_that_says(bin_folder, "echo T4, 535", monkeypatch)
    assert chosen_precision(config) == chosen_of(slow)
    driver_that_says(bin_folder, "exit 9", monkeypatch)
    chosen_precision(config)
    (bin_folder / "nvidia-smi").write_text("#!/bin/sh\necho T4, 535\n")
    assert _gpu_names() == "T4, 535", "a failure is not remembered"
    _gpu_names.cache_clear()


def test_another_gpu_is_measured_and_what_that_says_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_with(TrainingSection(device="cuda"), tmp_path)
    driver_that_says(tmp_path / "bin", "echo A100, 535; echo A100, 535", monkeypatch)
    chosen = chosen_precision(config)
    outcome = kept(tmp_path / PRECISION_NAME)
    assert outcome is not None and outcome.machine.processor == "A100, 535"
    assert chosen == chosen_of(outcome)
    _gpu_names.cache_clear()


def test_a_home_that_takes_no_file_is_no_fault_and_is_measured_once(tmp_path: Path) -> None:
    path = tmp_path / "no-folder" / "below" / PRECISION_NAME
    path.parent.parent.write_text("a file in the place of a folder")
    first = measured(path, GPU)
    assert measured(path, GPU) is first


def test_both_precisions_are_timed_in_a_process_of_its_own() -> None:
    found = measure(HERE)
    assert found.seconds is not None, found.fault
    assert 0 < found.seconds.float32 < 60 and 0 < found.seconds.bfloat16 < 60
    assert found.machine == HERE


CPU = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 {}\nbugs\t: none\n"


@pytest.mark.parametrize(
    ("facts", "lacks"),
    [
        (CPU.format("avx512f"), True),
        (CPU.format("avx512_bf16 avx512f"), False),
        (CPU.format("amx_bf16 amx_tile"), False),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd\n", True),
        ("vendor_id\t: IBM\n", False),
        ("", False),
    ],
)
def test_a_cpu_is_not_measured_where_it_says_that_it_cannot(facts: str, lacks: bool) -> None:
    assert lacks_bfloat16(facts) is lacks


@pytest.mark.parametrize(
    ("settings", "precision", "reason"),
    [
        ({"precision": "bfloat16"}, "bfloat16", "precision in silo-agent.toml says so"),
        ({"precision": "float32", "device": "cuda"}, "float32", "says so"),
        (ON_NODES, "bfloat16", "several machines are not measured"),
        ({**ON_NODES, "device": "cpu"}, "float32", "several machines are not measured"),
        ({**ON_NODES, "precision": "float32"}, "float32", "says so"),
    ],
)
def test_settings_and_several_machines_leave_nothing_to_measure(
    settings: dict[str, Any], precision: str, reason: str, tmp_path: Path
) -> None:
    config = config_with(TrainingSection(**settings), tmp_path)
    found = chosen_precision(config)
    assert found.precision == precision and reason in found.reason
    assert held_as(config).precision == precision
    assert not (tmp_path / PRECISION_NAME).exists()


def test_how_a_model_is_held_is_said_in_words(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"precision": "float32", "base_weights": "4-bit", "zero_stage": 1}
    said = held_words(config_with(TrainingSection(**settings), tmp_path))
    assert said == "float32 (precision in silo-agent.toml says so), 4-bit base weights"
    full = held_words(config_with(TrainingSection(precision="float32"), tmp_path))
    assert full == "float32 (precision in silo-agent.toml says so)"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('precision = "float16"', "training.precision"),
        ('base_weights = "2-bit"', "training.base_weights"),
        ("base_weights = 8", "training.base_weights"),
        ('base_weights = "8-bit"\nzero_stage = 3', 'needs zero_stage = 1, 2 or "auto": stage 3'),
        ('base_weights = "4-bit"\nzero_stage = 3', 'base_weights = "4-bit" needs zero_stage'),
        (
            'base_weights = "8-bit"\nzero_stage = "auto"\noffload = "cpu"',
            'base_weights = "8-bit" needs offload = "none"',
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(lines: str, says: str, tmp_path: Path) -> None:
    start = 'silo = "north"\nfederation = "fed"\n[storage]\nendpoint_url = "http://127.0.0.1:1"\n[training]\n'
    assert parse_config(start.encode(), tmp_path).training.base_weights == "full"
    with pytest.raises(SiloOperatorError, match=says):
        parse_config((start + lines).encode(), tmp_path)


def test_an_outcome_is_json_that_a_person_can_read(tmp_path: Path) -> None:
    outcome = Outcome(machine=HERE, seconds=Seconds(float32=1.0, bfloat16=0.5))
    assert json.loads(outcome.model_dump_json()) == {
        "machine": {"device": "cpu", "processor": "a processor", "torch": "2.0", "threads": 1},
        "seconds": {"float32": 1.0, "bfloat16": 0.5},
        "fault": "",
    }
