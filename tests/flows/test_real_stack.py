"""Whole rounds on the real stack, with agents and coordinator killed on the way.

The tests of this module are one story in three rounds and run in order.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from aggregator.decisions.stage import Stage
from aggregator.evidence.look import look
from aggregator.federated_round import close_round, merge_round, open_round
from aggregator.feed.reading import newest_attempt, read_federation
from aggregator.merge.adapter_merge import merge_adapters
from aggregator.steps.merging import merge_inputs
from data_contracts.protocol.bucket_layout import attempt_of, round_slot
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Candidate, Close, RoundPlan
from infra.processes.local_processes import recorded_processes, stop_recorded
from infra.stack.local_stack import RunningPrefect, RunningStorage
from silo_agent.loop import running_agent
from tests.flows.real_federation import (
    CANARY,
    CHECKPOINT_STEPS,
    LOCAL_STEPS,
    RealFederation,
    descendants,
    wait_for,
)
from tests.printed_commands import printed_commands

pytestmark = pytest.mark.stack

ROUND_SECONDS = 240


@pytest.fixture(scope="module")
def federation(
    tmp_path_factory: pytest.TempPathFactory,
    object_storage: RunningStorage,
    prefect_server: RunningPrefect,
) -> Iterator[RealFederation]:
    directory = tmp_path_factory.mktemp("a real federation #1")
    federation = RealFederation(directory, object_storage, prefect_server)
    yield federation
    stop_recorded(federation.state)


def test_a_round_with_a_refusal_and_an_agent_killed_in_training(
    federation: RealFederation,
) -> None:
    agents = {silo: federation.start_agent(silo) for silo in ("silo-a", "silo-b", "silo-c")}
    runner = federation.start_runner()
    wait_for("deployment", lambda: "serving" in runner.log_path.read_text(), 60, (runner,))
    _request_rounds(federation, until_round=1)

    def in_training() -> bool:
        status = federation.status("silo-b")
        return status.get("phase") == "training" and status["step"] > 2 * CHECKPOINT_STEPS

    wait_for("silo-b in training", in_training, ROUND_SECONDS, (*agents.values(), runner))
    ranks = descendants(agents["silo-b"])
    agents["silo-b"].kill()
    _, alive = psutil.wait_procs(ranks, timeout=15)
    assert ranks
    assert alive == [], "training must not outlive the agent"

    agents["silo-b"] = federation.start_agent("silo-b")
    for who in ("coordinator", "silo-a"):
        _rotate_storage_credential(federation, who)
    report = wait_for(
        "report of round 1",
        lambda: federation.reported(1, 1),
        ROUND_SECONDS,
        (*agents.values(), runner),
    )
    assert report.outcome == "published"
    outcomes = {silo.silo: (silo.outcome, silo.rule) for silo in report.silos}
    assert outcomes == {
        "silo-a": ("admitted", None),
        "silo-b": ("admitted", None),
        "silo-c": ("refused", "policy.rank"),
    }
    result = _training_result(federation, "silo-b", 1)
    assert result["steps"] == LOCAL_STEPS
    assert "storage-credentials.toml was replaced" in agents["silo-a"].log_path.read_text()
    assert result["resumed_from_step"] >= CHECKPOINT_STEPS, (
        "a restarted agent goes on from the checkpoint"
    )
    assert all(silo.losses.candidate < silo.losses.base for silo in report.silos if silo.losses)


def test_the_signed_report_can_be_verified_offline(federation: RealFederation) -> None:
    reports, trust = federation.home / "reports", str(federation.home / "membership.json")
    adapter = str(federation.home / "published" / "adapter_model.safetensors")
    for name in ("run-1-round-0001.json", "run-1-round-0001.html"):
        printed = federation.consortia(
            "report", "verify", str(reports / name), "--trust", trust, "--adapter", adapter
        )
        assert "no claim fails" in printed
    archive = federation.directory / "round-0001.zip"
    federation.consortia(
        "report", "export", str(reports / "run-1-round-0001.html"), "--into", str(archive)
    )
    printed = federation.consortia("report", "verify", str(archive), "--trust", trust)
    assert "no claim fails" in printed


def test_the_published_adapter_gives_the_signed_loss_in_plain_peft(
    federation: RealFederation,
) -> None:
    """Logits of plain PEFT give the loss that silo-a measured with our code and signed."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    report = federation.reported(1, 1)
    assert report is not None
    signed = next(silo.losses for silo in report.silos if silo.silo == "silo-a")
    assert signed is not None
    base = AutoModelForCausalLM.from_pretrained(federation.model_dir, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, federation.home / "published")
    tokenizer = AutoTokenizer.from_pretrained(federation.model_dir)
    heldout = federation.silo_home("silo-a") / "work" / "splits" / "heldout.jsonl"
    total, tokens = 0.0, 0
    for line in heldout.read_text().splitlines():
        record = json.loads(line)
        turn = [{"role": "user", "content": record["prompt"]}]
        prompt = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        turn.append({"role": "assistant", "content": record["answer"]})
        answer = tokenizer.apply_chat_template(turn, tokenize=False).removeprefix(prompt)
        prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer_ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([prompt_ids + answer_ids])).logits[0]
        predicted = logits[len(prompt_ids) - 1 : -1]
        total += float(
            torch.nn.functional.cross_entropy(predicted, torch.tensor(answer_ids), reduction="sum")
        )
        tokens += len(answer_ids)
    assert tokens > 100
    assert total / tokens == pytest.approx(float(signed.candidate), abs=1e-4)


def test_a_scheduled_deployment_does_schedule(federation: RealFederation) -> None:
    """Prefect's scheduler creates future runs from the cron line; a broken one is silent."""
    script = (
        "from prefect.client.orchestration import get_client\n"
        "with get_client(sync_client=True) as client:\n"
        "    runs = client.read_flow_runs()\n"
        "print(sum(run.state_name == 'Scheduled' for run in runs))\n"
    )

    def scheduled() -> bool:
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=dict(os.environ) | dict(federation.prefect.env),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return int(done.stdout.split()[-1]) > 0

    assert wait_for("scheduled runs", scheduled, 90, ())


def test_a_coordinator_killed_in_the_merge_resumes_with_the_same_bytes(
    federation: RealFederation, tmp_path: Path
) -> None:
    c = federation.coordinator()
    plan = open_round(c, 2)
    agents = tuple(recorded_processes(federation.state))

    def all_answered() -> bool:
        return look(c, plan).stage is Stage.CLOSING

    wait_for("submissions", all_answered, ROUND_SECONDS, agents)
    close = close_round(c, look(c, plan))
    assert isinstance(close.record, Close)
    _kill_in_merge(federation, tmp_path)
    slot = round_slot(attempt_of(plan), Candidate.kind)
    assert c.plans.list_keys(slot) == [], "a killed merge leaves no candidate"
    candidate = merge_round(federation.coordinator(), look(federation.coordinator(), plan))

    inputs = merge_inputs(federation.coordinator(), plan.record, close.record)
    again = merge_adapters(inputs, tmp_path / "again.safetensors")
    assert again.adapter == candidate.record.adapter


def test_below_quorum_aborts_and_the_next_attempt_succeeds(federation: RealFederation) -> None:
    federation.consortia("round", "abort", "--home", str(federation.home), "--reason", "A test.")
    stop_recorded(federation.state)
    agent = federation.start_agent("silo-a")
    federation.edit_settings(submit_minutes=0.2)
    runner = federation.start_runner()
    wait_for("deployment", lambda: "serving" in runner.log_path.read_text(), 60, (runner,))
    _request_rounds(federation, until_round=2)
    c = federation.coordinator()

    def opened() -> Verified[RoundPlan] | None:
        newest = newest_attempt(c, read_federation(c))
        return newest.plan if newest is not None and newest.plan.record.attempt == 2 else None

    wait_for("attempt 2 of round 2", opened, 60, (agent, runner))
    federation.edit_settings(submit_minutes=30)
    bundle = federation.home / "reports" / "run-1-round-0002-attempt-02.json"
    wait_for("report of the aborted attempt", bundle.exists, 90, (agent, runner))
    second = federation.start_agent("silo-b")
    third = federation.start_agent("silo-c")
    processes = (agent, second, third, runner)
    report = wait_for(
        "report of attempt 3", lambda: federation.reported(2, 3), ROUND_SECONDS, processes
    )
    assert report.outcome == "published"
    assert (federation.home / "reports" / "run-1-round-0002.json").exists(), "the operator's abort"
    printed = federation.consortia(
        "report", "verify", str(bundle), "--trust", str(federation.home / "membership.json")
    )
    assert "no claim fails" in printed


def test_stop_ends_the_agent_and_its_round_can_run_as_a_flow_of_the_silos_own(
    federation: RealFederation,
) -> None:
    home = federation.silo_home("silo-a")
    done = _silo_agent(home, "stop")
    assert "has stopped" in done.stdout
    assert running_agent(home) is None
    shown = _silo_agent(home, "status").stdout
    assert "does not run" in shown
    assert "STOP" in shown
    (home / "STOP").unlink()
    script = (
        "import sys; from flows.round.silo_round import silo_round; print(silo_round(sys.argv[1]))"
    )
    flow = subprocess.run(
        [sys.executable, "-c", script, str(home)],
        env=dict(os.environ) | dict(federation.prefect.env),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert flow.returncode == 0, flow.stderr
    assert flow.stdout.split()[-1] == "finished"


def test_nothing_of_any_data_set_left_its_silo(federation: RealFederation) -> None:
    """Objects and their keys, records as they decode, logs, Prefect's state, reports, statuses."""
    c = federation.coordinator()
    buckets = [c.plans, *(c.inbox(silo) for silo in ("silo-a", "silo-b", "silo-c"))]
    found: dict[str, bytes] = {}
    for bucket in buckets:
        for info in bucket.list_keys(""):
            data = bucket.get(info.key, info.size) or b""
            found[f"{bucket.name}/{info.key}"] = info.key.encode() + data + _payload(data)
    assert sum(key.endswith(".json") for key in found) > 30
    assert any("blobs/" in key for key in found)
    places = [federation.home, federation.state, federation.prefect.process.state_dir]
    inside = [federation.silo_home(silo) for silo in ("silo-a", "silo-b", "silo-c")]
    for place in places:
        for path in (p for p in place.rglob("*") if p.is_file()):
            if not any(path.is_relative_to(home) for home in inside):
                found[str(path)] = path.name.encode() + path.read_bytes()
    assert any(name.endswith(".html") for name in found)
    assert any("prefect" in Path(name).name and name.endswith(".db") for name in found)
    assert any(name.endswith(".log") for name in found)
    leaked = [name for name, data in found.items() if CANARY.lower().encode() in data.lower()]
    assert leaked == []
    kept = inside[0] / "work" / "splits" / "train.jsonl"
    assert CANARY in kept.read_text(), "the search looks for what is really there"


def _payload(envelope: bytes) -> bytes:
    """What a signed record says, out of its base64."""
    try:
        return base64.b64decode(json.loads(envelope)["payload"])
    except (ValueError, KeyError, TypeError):
        return b""


def _silo_agent(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "silo_agent.cli", *words, "--home", str(home)],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )


def _request_rounds(federation: RealFederation, until_round: int) -> None:
    federation.consortia(
        "round", "start", "--home", str(federation.home), "--until-round", str(until_round)
    )


def _rotate_storage_credential(federation: RealFederation, who: str) -> None:
    """As its operators type it, while agent, runner and flow run."""
    where = ("--state", str(federation.storage.state_dir), "--home", str(federation.home))
    said = federation.consortia("stack", "rotate", who, *where)
    if who != "coordinator":
        (accept,) = (line for line in printed_commands(said) if line[0] == "silo-agent")
        _silo_agent(federation.silo_home(who), *accept[1:3])
    assert "is refused from now on" in federation.consortia(
        "stack", "rotate", who, *where, "--revoke-old"
    )


def _training_result(federation: RealFederation, silo: str, number: int) -> dict[str, int]:
    path = federation.silo_home(silo) / "work" / "run-1" / f"round-{number:04d}" / "result.json"
    return dict(json.loads(path.read_text())["result"])


def _kill_in_merge(federation: RealFederation, tmp_path: Path) -> None:
    """SIGKILL a coordinator process in the middle of its merge."""
    marker = tmp_path / "in-the-middle"
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from aggregator.coordinator import load_coordinator\n"
        "from aggregator.evidence.look import look\n"
        "from aggregator.federated_round import merge_round, open_round\n"
        "def hang(done, total):\n"
        "    if done == total // 2:\n"
        "        Path(sys.argv[2]).touch()\n"
        "        time.sleep(600)\n"
        "c = load_coordinator(Path(sys.argv[1]))\n"
        "merge_round(c, look(c, open_round(c, 2)), hang)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(federation.home), str(marker)])
    try:
        wait_for("merge", lambda: marker.exists() or process.poll() is not None, 60, ())
        assert marker.exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    shutil.rmtree(federation.home / "workspace")
