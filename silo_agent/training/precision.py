"""In which precision a silo trains: what its settings say, or what was measured to be fast here.

`precision = "auto"` takes bfloat16 where a measurement on this machine says that it is clearly
faster, and what was measured is kept in the home: timings are never quite the same twice, and a
precision that changed would begin a training anew. It is measured again when processor or GPU,
driver, PyTorch or the number of threads is another one. Nothing is measured where the answer is
known: a CPU without instructions for bfloat16 computes it slowly. This process never loads PyTorch.
"""

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from data_contracts.errors import ConsortiaError
from infra.disk.durable_files import write_durably
from silo_agent.config import SiloConfig, TrainingSection
from silo_agent.training.engine_spec import PINNED, Device, HeldAs, Precision

PROBE = "silo_agent.training.ranks.precision_probe"
PRECISION_NAME = "precision.json"
MOST_SHARE = 0.75
"""Of the time of float32: bfloat16 halves the memory but rounds more, so it has to be worth it."""

PROBE_SECONDS, GPU_SECONDS = 120, 20
BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""As Linux names the instructions, of x86 and of ARM."""

CPU_FACTS = Path("/proc/cpuinfo")
_GPU_COMMAND = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")


@dataclass(frozen=True)
class ChosenPrecision:
    """A precision, and why it is that, in words."""

    precision: Precision
    reason: str


class Machine(BaseModel):
    """What timings depend on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Device
    processor: str
    torch: str
    threads: int


class Seconds(BaseModel):
    """Of one forward and backward pass of a layer with LoRA, in both precisions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    float32: float
    bfloat16: float

    @property
    def chosen(self) -> ChosenPrecision:
        """bfloat16 where it is clearly faster."""
        is_fast = self.bfloat16 <= MOST_SHARE * self.float32
        times = self.float32 / self.bfloat16 if self.bfloat16 > 0 else 0.0
        measured = f"measured here: bfloat16 has {times:.2f} times the speed of float32"
        least = f"{1 / MOST_SHARE:.2f} are asked for"
        return ChosenPrecision(
            "bfloat16" if is_fast else "float32", measured if is_fast else f"{measured}, {least}"
        )


class Outcome(BaseModel):
    """What was measured on which machine; `seconds` None where it could not be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: Machine
    seconds: Seconds | None
    fault: str = ""


_unwritten: dict[Path, Outcome] = {}
"""Outcomes that a disk did not take, by where they belong."""


def held_as(config: SiloConfig) -> HeldAs:
    """How the silo holds a model while it trains."""
    return HeldAs(chosen_precision(config).precision, config.training.base_weights)


def held_words(config: SiloConfig) -> str:
    """How a model is held while it trains, and why, in words."""
    chosen, weights = chosen_precision(config), config.training.base_weights
    held = f"{chosen.precision} ({chosen.reason})"
    return held if weights == "full" else f"{held}, {weights} base weights"


def lacks_bfloat16(facts: str | None = None) -> bool:
    """Whether the processor is known to have no instructions for it: by what Linux says of it."""
    flags = flags_of(_cpu_facts() if facts is None else facts)
    return bool(flags) and not flags.intersection(BFLOAT16_FLAGS)


def chosen_precision(config: SiloConfig) -> ChosenPrecision:
    """The precision of this silo's training; may measure for a few seconds, once."""
    training = config.training
    usual = PINNED[training.device].precision
    if training.precision != "auto":
        return ChosenPrecision(training.precision, "precision in silo-agent.toml says so")
    if training.nodes is not None:
        return ChosenPrecision(usual, "several machines are not measured")
    if training.device == "cpu" and lacks_bfloat16():
        return ChosenPrecision("float32", "this processor has no instructions for bfloat16")
    processor = _gpu() if training.device == "cuda" else _cpu()
    path = config.home / PRECISION_NAME
    if processor is None:
        # It may not answer for a moment: what counted until now counts on.
        known = kept(path)
        if known is not None and known.machine.device == training.device:
            return chosen_of(known)
        return ChosenPrecision(usual, "nvidia-smi names no GPU that could be measured")
    return chosen_of(measured(path, _machine(training, processor)))


def chosen_of(outcome: Outcome) -> ChosenPrecision:
    """What follows from a measurement; without one the device's usual precision."""
    if outcome.seconds is not None:
        return outcome.seconds.chosen
    usual = PINNED[outcome.machine.device].precision
    return ChosenPrecision(usual, f"it could not be measured: {outcome.fault}")


def measured_words(home: Path) -> str | None:
    """What was measured for this home, on which machine; None where nothing was."""
    outcome = kept(home / PRECISION_NAME)
    if outcome is None:
        return None
    return f"{chosen_of(outcome).reason} ({outcome.machine.processor})"


def measured(path: Path, machine: Machine) -> Outcome:
    """The outcome in `path`, where it is of this machine; else a new one, which is kept there.

    A disk that refuses it is no fault of the precision: this process then remembers it.
    """
    known = kept(path) or _unwritten.get(path)
    if known is not None and known.machine == machine:
        return known
    outcome = measure(machine)
    # Another process may have measured meanwhile: one outcome counts.
    known = kept(path)
    if known is not None and known.machine == machine:
        return known
    try:
        write_durably(path, outcome.model_dump_json().encode())
    except (ConsortiaError, OSError):
        _unwritten[path] = outcome
    return outcome


def kept(path: Path) -> Outcome | None:
    """What was measured and kept; None where nothing is there, or nothing that can be read."""
    try:
        return Outcome.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def measure(machine: Machine) -> Outcome:
    """Time both precisions in a process of its own; a fault of it is an outcome, too."""
    threads = str(machine.threads)
    try:
        done = subprocess.run(
            [sys.executable, "-m", PROBE, machine.device, threads],
            env=os.environ | {"OMP_NUM_THREADS": threads, "DS_ACCELERATOR": machine.device},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
        said = done.stderr if done.returncode else done.stdout
        last = (said.strip() or "it said nothing").splitlines()[-1]
        if done.returncode:
            return Outcome(machine=machine, seconds=None, fault=last[:300])
        return Outcome(machine=machine, seconds=Seconds.model_validate(json.loads(last)))
    except subprocess.TimeoutExpired:
        fault = f"it took more than {PROBE_SECONDS} seconds"
    except (OSError, ValueError) as error:
        fault = str(error).splitlines()[0][:300]
    return Outcome(machine=machine, seconds=None, fault=fault)


def _machine(training: TrainingSection, processor: str) -> Machine:
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "none"
    threads = training.threads_per_rank
    return Machine(device=training.device, processor=processor, torch=torch, threads=threads)


def flags_of(text: str) -> frozenset[str]:
    """The instructions that Linux says a processor has; empty where it says none."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


@cache
def _cpu_facts() -> str:
    try:
        return CPU_FACTS.read_text()
    except OSError:
        return ""


def _cpu() -> str:
    """The processor's name; its flags too, because a virtual machine may hide some."""
    named = [
        line.partition(":")[2].strip()
        for line in _cpu_facts().splitlines()[:64]
        if line.startswith("model name")
    ]
    own = sorted(flags_of(_cpu_facts()).intersection(BFLOAT16_FLAGS))
    return " ".join([named[0] if named else platform.processor() or platform.machine(), *own])


def _gpu() -> str | None:
    """None where the driver's own program names none."""
    try:
        return _gpu_names() or None
    except (OSError, subprocess.SubprocessError):
        return None


@cache
def _gpu_names() -> str:
    """Asked once where it answers; what it raises is not remembered."""
    done = subprocess.run(
        _GPU_COMMAND, capture_output=True, text=True, timeout=GPU_SECONDS, check=True
    )
    return "; ".join(sorted(set(done.stdout.split("\n")) - {""}))
