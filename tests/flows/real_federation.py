"""A small federation on the real stack: SeaweedFS, Prefect, agents as processes, DeepSpeed ranks.

The model is a random two-layer Llama, so that a whole round takes seconds; everything else is what
users run.
"""

import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aggregator.coordinator import CONTRACTS_DIRECTORY, Coordinator, load_coordinator
from aggregator.feed.reading import newest_attempt, read_federation, read_report
from data_contracts.protocol.records import RoundReport
from flows.federation.admin import FederationTerms, Joining, add_silo, init_federation
from flows.federation.contract_signing import sign_on_both_sides
from infra.disk.durable_files import write_durably
from infra.disk.model_files import model_digest
from infra.encryption.identities import load_identity
from infra.processes.local_processes import LocalProcess, start_process
from infra.signing_keys import load_key
from infra.stack.attached_storage import remember_storage
from infra.stack.local_stack import RunningPrefect, RunningStorage, ensure_auth_string
from tests.tiny_model import make_tiny_model

_T = TypeVar("_T")
FEDERATION = "real"
PURPOSE = "Testing the whole pipeline"
LOCAL_STEPS = 50
CHECKPOINT_STEPS = 10
LEARNING_RATE = "0.006"
"""Such that a first round is far from the floor of the loss, and the second one still gains."""

CONTRACT = """\
apiVersion: v3.2.0
kind: DataContract
id: records-of-{silo}
version: 1.0.0
status: active
description:
  purpose: {purpose}
servers:
  - server: silo
    type: local
    path: records.jsonl
    format: jsonl
schema:
  - name: records
    logicalType: object
    properties:
      - name: id
        logicalType: string
        required: true
      - name: subject
        logicalType: string
        required: true
      - name: prompt
        logicalType: string
        required: true
      - name: answer
        logicalType: string
        required: true
      - name: licence
        logicalType: string
        required: true
      - name: source
        logicalType: string
        required: true
customProperties:
  - property: fl.licences
    value: [CC0-1.0]
  - property: fl.minimumRecords
    value: 20
  - property: fl.expires
    value: "2036-01-01T00:00:00Z"
"""

CANARY = "Canary5c9e1"
"""In every text, id and file name of every silo's data; it must be nowhere else."""

VERBS = ("call", "ask", "tell", "watch", "close", "check")
NOUNS = ("the branch", "the bank", "the shop", "your account", "the counter", "your statement")

POLICY = """\
version = 1
take_part = true
purposes = ["{purpose}"]
trust_modes = ["auditable"]
trust_storage_with_deltas = false
[limits]
max_local_steps = 1000
max_sequences_per_step = 8
max_sequence_length = 512
max_learning_rate = 0.01
max_rank = {max_rank}
max_adapter_bytes = 10_000_000
min_cohort_silos = 3
max_retention_days = 400
[leak_check]
too_few = "allow"
[[models]]
name = "tiny"
licence = "Apache-2.0"
digest = "{digest}"
path = "{path}"
"""


@dataclass
class RealFederation:
    """One federation with silos `a`, `b` and `c`; `c` refuses rank 8 by its policy."""

    directory: Path
    storage: RunningStorage
    prefect: RunningPrefect

    def __post_init__(self) -> None:
        self.home = self.directory / "operator"
        self.state = self.directory / "processes"
        self.model_dir = make_tiny_model(self.directory / "model")
        remember_storage(self.storage)
        auth = ensure_auth_string(self.prefect.process.state_dir / "prefect-auth")
        write_durably(self.home / "keys" / "prefect-auth", auth.encode())
        init_federation(self.home, self._terms(), self.storage)
        self.edit_settings(
            local_steps=LOCAL_STEPS,
            sequence_length=128,
            learning_rate=f'"{LEARNING_RATE}"',
            poll_seconds=2,
        )
        for silo, ranks, max_rank in (("silo-a", 2, 8), ("silo-b", 1, 8), ("silo-c", 1, 4)):
            self._add_silo(silo, ranks, max_rank)

    def silo_home(self, silo: str) -> Path:
        """Home directory of a silo's agent."""
        return self.directory / silo

    def coordinator(self) -> Coordinator:
        """A fresh coordinator from the files on disk."""
        return load_coordinator(self.home)

    def edit_settings(self, **values: Any) -> None:
        """Change settings in federation.toml; the next round uses them."""
        set_values(self.home / "federation.toml", **values)

    def start_agent(self, silo: str) -> LocalProcess:
        """`silo-agent run` as a process of its own."""
        command = [sys.executable, "-m", "silo_agent.cli", "run", "--home"]
        return start_process(
            silo, [*command, str(self.silo_home(silo))], self.state, env=dict(os.environ)
        )

    def start_runner(self) -> LocalProcess:
        """`consortia deploy` as a process of its own."""
        command = [sys.executable, "-m", "flows.cli", "deploy", "--home", str(self.home)]
        env = dict(os.environ) | dict(self.prefect.env)
        return start_process("runner", command, self.state, env=env)

    def consortia(self, *arguments: str) -> str:
        """Run a `consortia` command; returns what it printed, fails on a non-zero exit."""
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *arguments],
            env=dict(os.environ) | dict(self.prefect.env),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self, silo: str) -> dict[str, Any]:
        """What the agent last showed locally; empty before its first status."""
        path = self.silo_home(silo) / "status.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def reported(self, round_number: int, attempt: int) -> RoundReport | None:
        """The report of an attempt of the newest round, once it is there."""
        return newest_report(self.coordinator(), round_number, attempt)

    def _terms(self) -> FederationTerms:
        return FederationTerms(
            federation=FEDERATION,
            run="run-1",
            purpose=PURPOSE,
            model_name="tiny",
            model_licence="Apache-2.0",
            model_path=self.model_dir,
            prefect_api_url=self.prefect.api_url,
            endpoint_url=self.storage.endpoint_url,
        )

    def _add_silo(self, silo: str, ranks: int, max_rank: int) -> None:
        home = self.silo_home(silo)
        command = [sys.executable, "-m", "silo_agent.cli", "init", "--home", str(home)]
        command += ["--silo", silo, "--federation", FEDERATION, "--ranks", str(ranks)]
        command += ["--endpoint-url", self.storage.endpoint_url]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        config = (home / "silo-agent.toml").read_text()
        config = config.replace("every_steps = 2", f"every_steps = {CHECKPOINT_STEPS}")
        config = config.replace("heldout_sequences = 32", "heldout_sequences = 64")
        config = config.replace("silo_only_baseline = true", "silo_only_baseline = false")
        lock = f'lock = "{self.directory / "training.lock"}"\n'
        config += f"{lock}\n[agent]\npoll_seconds = 2\nstatus_seconds = 0.5\n"
        (home / "silo-agent.toml").write_text(config)
        policy = POLICY.format(
            purpose=PURPOSE,
            max_rank=max_rank,
            digest=model_digest(self.model_dir),
            path=self.model_dir,
        )
        (home / "policy.toml").write_text(policy)
        self._write_data(silo)
        contract = home / "contract.yaml"
        contract.write_text(CONTRACT.format(silo=silo, purpose=PURPOSE))
        key = load_key(home / "keys" / "signing-key.pem").public_key_hex
        recipient = load_identity(home / "keys" / "identity.txt").recipient
        joining = Joining(silo, key, contract, recipient=recipient)
        hand_over, _ = add_silo(self.home, joining, self.storage)
        credentials = (hand_over / "storage-credentials.toml").read_bytes()
        write_durably(home / "keys" / "storage-credentials.toml", credentials)
        write_durably(home / "membership.json", (hand_over / "membership.json").read_bytes())
        filed = self.home / CONTRACTS_DIRECTORY / f"{silo}.yaml"
        sign_on_both_sides(contract, home, filed, self.home, silo)

    def _write_data(self, silo: str) -> None:
        root = self.silo_home(silo) / "data"
        root.mkdir(parents=True, exist_ok=True)
        records = (
            {
                "id": f"{CANARY}-{silo}-{number}",
                "subject": f"{CANARY}-subject-{number}",
                "prompt": f"What does the handbook say about card {number} of {CANARY}?",
                "answer": f"Block card {number} at once: {_advice(silo, number)}. {CANARY} pays.",
                "licence": "CC0-1.0",
                "source": f"written for this test by {CANARY}",
            }
            for number in range(60)
        )
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (root / f"{CANARY}.jsonl").write_text(lines)
        # The contract, which the coordinator holds, knows a name that says nothing.
        (root / "records.jsonl").symlink_to(f"{CANARY}.jsonl")


def set_values(path: Path, **values: Any) -> None:
    """Change settings where they stand in a TOML file."""
    text = path.read_text()
    for name, value in values.items():
        text, count = re.subn(rf"(?m)^{name} = [^#\n]*", f"{name} = {value} ", text)
        assert count == 1, name
    path.write_text(text)


def newest_report(c: Coordinator, round_number: int, attempt: int) -> RoundReport | None:
    """The report of an attempt, if it is the newest one and has its report."""
    feed = read_federation(c)
    newest = newest_attempt(c, feed)
    if newest is None:
        return None
    plan = newest.plan
    if (plan.record.round, plan.record.attempt) != (round_number, attempt):
        return None
    report = read_report(c, feed, plan)
    return report.record if report else None


def wait_for(
    what: str, look: Callable[[], _T | None], seconds: float, processes: tuple[LocalProcess, ...]
) -> _T:
    """Poll until `look` gives something; fails with the processes' logs when time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        ended = [process for process in processes if not process.is_running()]
        assert not ended, "\n".join(f"{p.name} ended:\n{p.log_tail()}" for p in ended)
        time.sleep(0.3)
    logs = "\n".join(f"{process.name}:\n{process.log_tail()}" for process in processes)
    raise AssertionError(f"{what}: not within {seconds} s\n{logs}")


def _advice(silo: str, number: int) -> str:
    """Words that no other record has in this order, so that none nearly repeats another, and no
    silo's adapter is the copy of another's."""
    words = [f"{verb} {noun}" for verb in VERBS for noun in NOUNS]
    return ", ".join(random.Random(f"{silo} {number}").sample(words, 4))
