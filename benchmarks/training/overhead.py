"""What a round costs a silo besides its training steps, in a real federation of the product.

A real storage, the demo's federation, and one real agent as a process of its own, which waits for
plans already and looks for one every second. Seconds go from the moment when the signed plan is in
storage to the one when the submission is, less those of the training steps. The first round is
cold: the agent checks the data by its contract, tokenises it and starts its ranks. From the second
on the outcome of the check is known and the ranks stay. One packed sequence of held-out records is
measured in the first round, which the peers do not do.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from aggregator.coordinator import Coordinator, load_coordinator
from aggregator.evidence.look import look
from aggregator.federated_round import (
    close_round,
    decide_round,
    merge_round,
    open_round,
    report_round,
)
from aggregator.settings.federation import SETTINGS_NAME
from benchmarks.peers.environments import environment_python
from benchmarks.training.material import STATE, Material
from data_contracts.protocol.bucket_layout import attempt_of, round_slot
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Evaluation, RoundPlan, Submission
from flows.demo.federation import set_up_federation
from flows.demo.layout import DemoPaths
from flows.demo.packages import ALL_WHEELS
from infra.disk.durable_files import write_durably
from infra.processes.local_processes import LocalProcess, start_process
from infra.stack.seaweedfs import start_object_storage

SILO = "north-hospital"
LOOK_SECONDS, LIMIT_SECONDS = 0.05, 1500.0
POLLS = {"consortia": 1.0, "flower": 3.0, "nvflare": 0.2}
"""How often each looks for work. Ours, by default 5, and FLARE's, by default 2, are settings; that
of a SuperNode is fixed."""


@dataclass(frozen=True)
class Overhead:
    """Seconds of one round that are not training steps."""

    seconds: float
    steps_seconds: float


def consortia(material: Material, rounds: int, folder: Path) -> list[Overhead]:
    """The overhead of every round in turn; everything that was started is stopped."""
    paths = DemoPaths(folder.resolve())
    with ExitStack() as stack:
        storage = start_object_storage(paths.stack)
        stack.callback(storage.stop)
        wheels = {pin.name: pin.fetch(STATE / "packages") for pin in ALL_WHEELS}
        nobody = ("http://127.0.0.1:9/api", "nobody:nothing")
        set_up_federation(paths, material.model_dir, wheels, storage, *nobody)
        _adapt(paths, material)
        c = load_coordinator(paths.home)
        agent = start_process("agent", _agent_command(paths), paths.stack, env=_environment())
        stack.callback(agent.stop)
        _until(lambda: "waiting for plans" in agent.log_tail(), agent)
        return [_round(c, number, paths, agent) for number in range(1, rounds + 1)]


def peer(name: str, material: Material, rounds: int) -> list[Overhead]:
    """As `consortia`, of a system that has an environment of its own."""
    script = Path("benchmarks/peers") / name / "overhead.py"
    command = [str(environment_python(name, "training")), str(script)]
    done = subprocess.run(
        [*command, str(material.folder), str(rounds)], stdout=subprocess.PIPE, text=True, check=True
    )
    return [Overhead(**each) for each in json.loads(done.stdout.splitlines()[-1])]


def _adapt(paths: DemoPaths, material: Material) -> None:
    """One silo is enough, trains what the peers train, and nothing for comparison."""
    recipe = material.recipe
    _edit(
        paths.home / SETTINGS_NAME,
        quorum="1",
        evaluation_quorum="1",
        local_steps=str(recipe.local_steps),
        sequences_per_step=str(recipe.sequences_per_step),
        sequence_length=str(recipe.sequence_length),
        warmup_steps=str(recipe.warmup_steps),
    )
    _edit(
        paths.silo(SILO) / "silo-agent.toml",
        silo_only_baseline="false",
        heldout_sequences="1",
        checkpoint_every_steps="1000",
        poll_seconds=f"{POLLS['consortia']:g}",
    )


def _edit(path: Path, **values: str) -> None:
    text = path.read_text(encoding="utf-8")
    for name, value in values.items():
        text, count = re.subn(rf"(?m)^{name} = [^#\n]*", f"{name} = {value} ", text)
        if count != 1:
            raise RuntimeError(f"{name} is {count} times in {path}")
    write_durably(path, text.encode())


def _round(c: Coordinator, number: int, paths: DemoPaths, agent: LocalProcess) -> Overhead:
    """Play it to its report, so that the next one can be planned."""
    plan = open_round(c, number)
    began = time.monotonic()
    _until(lambda: _has(c, plan, Submission.kind), agent)
    seconds = time.monotonic() - began
    steps = _seconds_of_steps(paths, plan.record)
    close_round(c, look(c, plan))
    merge_round(c, look(c, plan))
    _until(lambda: _has(c, plan, Evaluation.kind), agent)
    decide_round(c, look(c, plan))
    report_round(c, look(c, plan))
    return Overhead(seconds - steps, steps)


def _has(c: Coordinator, plan: Verified[RoundPlan], kind: str) -> bool:
    return bool(c.inbox(SILO).list_keys(round_slot(attempt_of(plan), kind)))


def _seconds_of_steps(paths: DemoPaths, plan: RoundPlan) -> float:
    work = paths.silo(SILO) / "work" / plan.run / f"round-{plan.round:04d}"
    (result,) = work.glob("result*.json")
    seconds: float = json.loads(result.read_text())["result"]["seconds"]
    return seconds


def _until(is_so: Callable[[], bool], agent: LocalProcess) -> None:
    until = time.monotonic() + LIMIT_SECONDS
    while not is_so():
        if time.monotonic() > until or not agent.is_running():
            raise RuntimeError(f"nothing came of it: {agent.log_tail()}")
        time.sleep(LOOK_SECONDS)


def _agent_command(paths: DemoPaths) -> list[str]:
    command = [sys.executable, "-m", "silo_agent.cli", "run", "--clear-stop"]
    return [*command, "--home", str(paths.silo(SILO))]


def _environment() -> dict[str, str]:
    return dict(os.environ) | {"HF_HUB_OFFLINE": "1", "GX_ANALYTICS_ENABLED": "false"}
