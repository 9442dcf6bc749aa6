"""README's federation from its first command on, killed, cut off and rotated on the way.

The tests of this module are one story in order, on one stack: what README says, the second round's
three attempts, and the stack that everything runs on. Agents, runner, flow, ranks and servers are
real, and everything is typed in a narrow terminal.
"""

import base64
import json
import os
import shutil
import signal
import socket
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
from aggregator.report.bundle import unpack_bundle
from aggregator.settings.federation import load_settings
from aggregator.steps.merging import merge_inputs
from data_contracts.protocol.bucket_layout import attempt_of, round_slot
from data_contracts.protocol.envelope import Verified, verify
from data_contracts.protocol.records import Candidate, Close, RoundPlan, RoundReport
from flows.deployment.orphaned_processes import flow_processes
from infra.loopback import LOOPBACK
from infra.processes.local_processes import recorded_processes
from infra.stack.stack_ports import remembered_ports
from silo_agent.loop import running_agent
from tests.flows.flow_runs import left_running, scheduled
from tests.flows.real_federation import set_values
from tests.life.readers_federation import (
    CANARY,
    DEPLOY,
    WORDS,
    Reader,
    addresses_in_settings,
    blocks,
)
from tests.loopback_server import answering
from tests.printed_commands import printed_commands, require_pasteable

pytestmark = [pytest.mark.long, pytest.mark.stack, pytest.mark.timeout(1800)]

LOCAL_STEPS, CHECKPOINT_STEPS = 20, 10
MANY_STEPS = 400
"""Enough for an agent to be killed among them."""
REPORTS = "fed/reports"
TRUST = ("--trust", "fed/membership.json")


def run_of(silo: str) -> str:
    """What is typed to run an agent."""
    return f"silo-agent run --home {silo}"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    reader = Reader(tmp_path_factory.mktemp("a life #1") / "an empty folder")
    yield reader
    reader.leave()


def test_a_reader_gets_to_a_published_adapter_that_each_member_verifies(reader: Reader) -> None:
    said = ""
    for language, block in blocks():
        if language in ("toml", "yaml"):
            reader.set_lines(block)
        elif language == "json":
            reader.bring_records(block)
        elif language == "bash":
            if "round start" in block:
                reader.wait_for("serving", lambda: "serving" in reader.said(DEPLOY))
            said += reader.type(block)
            reader.require_running()
    assert said.count("no claim fails") == 3, said
    assert "adapter_model.safetensors" in said
    assert reader.pasteable > 20
    said = reader.run("silo-agent", "check", "--home", "north")
    assert "its plan is one that the policy accepts" in said
    assert addresses_in_settings(reader.home) == reader.addresses()


def test_the_signed_report_can_be_verified_offline(reader: Reader) -> None:
    adapter = ("--adapter", "fed/published/adapter_model.safetensors")
    said = reader.consortia(
        "report", "verify", f"{REPORTS}/run-1-round-0001.json", *TRUST, *adapter
    )
    assert "no claim fails" in said
    reader.consortia(
        "report", "export", f"{REPORTS}/run-1-round-0001.html", "--into", "round-0001.zip"
    )
    assert "no claim fails" in reader.consortia("report", "verify", "round-0001.zip", *TRUST)


def test_the_published_adapter_gives_the_signed_loss_in_plain_peft(reader: Reader) -> None:
    """Logits of plain PEFT give the loss that north measured with our code and signed."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    report = reader.reported(1, 1)
    assert report is not None
    signed = next(silo.losses for silo in report.silos if silo.silo == "north")
    assert signed is not None
    model_dir = reader.folder / "model"
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, reader.home / "published")
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    heldout = reader.folder / "north" / "work" / "splits" / "heldout.jsonl"
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


def test_a_scheduled_deployment_does_schedule(reader: Reader) -> None:
    """Prefect's scheduler creates future runs from the cron line; a broken one is silent."""
    assert reader.wait_for("scheduled runs", lambda: scheduled(reader.home))


def test_before_the_first_plan_it_is_said_what_is_waited_for(reader: Reader) -> None:
    """Of a second federation on the same stack, whose home has a space in its name."""
    home = _second_home(reader)
    said = reader.consortia(
        *("federation", "init", "--home", str(home), "--federation", "first-steps"),
        *("--purpose", "Testing, in a narrow terminal", "--stack", "stack"),
        *("--model", "model", "--model-name", "tiny", "--model-licence", "Apache-2.0"),
    )
    assert addresses_in_settings(home) == reader.addresses()
    typed = [" ".join(command[:3]) for command in printed_commands(said)]
    assert "consortia federation add-silo" in typed
    assert any(command.startswith("silo-agent init") for command in typed)
    said = reader.consortia("round", "status", "--home", str(home))
    assert "has no plan yet" in said
    assert "not registered" in said
    assert ["consortia", "deploy", "--home", str(home)] in printed_commands(said)
    said = reader.consortia("round", "start", "--home", str(home), fails=True)
    assert f"`consortia deploy --home '{home}'`" in said
    reader.consortia("deploy", "--register-only", "--home", str(home))
    said = reader.consortia("round", "status", "--home", str(home))
    assert "Nothing serves the deployment" in said
    said = reader.consortia("round", "start", "--home", str(home))
    followed = ["consortia", "round", "watch", "--home", str(home), "--round", "1"]
    assert followed in printed_commands(said)
    page = reader.addresses()["api_url"].removesuffix("/api")
    assert f"{page}/runs/flow-run/" in said


def test_a_missing_password_says_where_its_text_lies(reader: Reader) -> None:
    home = _second_home(reader)
    settings = home / "federation.toml"
    right = settings.read_text()
    settings.write_text(right.replace(addresses_in_settings(home)["auth"], "keys/nothing"))
    for command in ("deploy", "round start"):
        said = reader.consortia(*command.split(), "--home", str(home), fails=True)
        assert "STATE/prefect-auth" in said
        assert f"`consortia stack use --state STATE --home '{home}'`" in said
    said = reader.consortia("round", "status", "--home", str(home))
    assert "STATE/prefect-auth" in said
    reader.consortia("stack", "use", "--state", "stack", "--home", str(home))
    assert settings.read_text() == right


@pytest.mark.parametrize("answer", [b"", b'"text"', b"{}", b"[]", b"<html>"])
def test_whatever_else_listens_is_not_taken_for_prefect(reader: Reader, answer: bytes) -> None:
    home = _second_home(reader)
    settings = home / "federation.toml"
    right = settings.read_text()
    with answering(lambda _: (200, answer)) as address:
        url = f"{address}/api"
        settings.write_text(right.replace(reader.addresses()["api_url"], url))
        said = reader.consortia("deploy", "--home", str(home), fails=True)
    settings.write_text(right)
    assert said.splitlines()[-1].startswith(f"error: Prefect at {url}: expected an answer; found")
    assert "serving" not in said


def _second_home(reader: Reader) -> Path:
    return reader.folder / "the federation"


def test_a_coordinator_killed_in_the_merge_resumes_with_the_same_bytes(
    reader: Reader, tmp_path: Path
) -> None:
    """Attempt 1 of round 2, with an agent on two ranks and one that refuses, ended by hand."""
    for silo in WORDS:
        reader.end(run_of(silo))
        often = "poll_seconds = 2\nstatus_seconds = 0.5"
        every = {"checkpoint_every_steps": CHECKPOINT_STEPS, "silo_only_baseline": "false"}
        reader.set_agent(silo, often, ranks=2 if silo == "north" else 1, **every)
    set_values(reader.folder / "east" / "policy.toml", max_rank=4)
    set_values(
        reader.home / "federation.toml",
        local_steps=LOCAL_STEPS,
        sequence_length=128,
        poll_seconds=2,
    )
    for silo in WORDS:
        reader.start(run_of(silo))
    c = reader.coordinator()
    plan = open_round(c, 2)
    reader.wait_for("submissions", lambda: look(c, plan).stage is Stage.CLOSING)
    close = close_round(c, look(c, plan))
    assert isinstance(close.record, Close)
    _kill_in_merge(reader, tmp_path)
    slot = round_slot(attempt_of(plan), Candidate.kind)
    assert c.plans.list_keys(slot) == [], "a killed merge leaves no candidate"
    candidate = merge_round(reader.coordinator(), look(reader.coordinator(), plan))

    inputs = merge_inputs(reader.coordinator(), plan.record, close.record)
    again = merge_adapters(inputs, tmp_path / "again.safetensors")
    assert again.adapter.plain == candidate.record.adapter.plain
    reader.consortia("round", "abort", "--home", "fed", "--reason", "A test.")


def _kill_in_merge(reader: Reader, tmp_path: Path) -> None:
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
    process = subprocess.Popen([sys.executable, "-c", script, str(reader.home), str(marker)])
    try:
        reader.wait_for("merge", lambda: marker.exists() or process.poll() is not None)
        assert marker.exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    shutil.rmtree(reader.home / "workspace")


def test_below_quorum_aborts_although_the_flow_was_killed(reader: Reader) -> None:
    """Attempt 2, which nobody answers; the runner resumes its flow run, nobody types anything."""
    for silo in WORDS:
        reader.end(run_of(silo))
    set_values(reader.home / "federation.toml", submit_minutes=0.5)
    reader.consortia("round", "start", "--home", "fed", "--until-round", "2")
    reader.wait_for("attempt 2 of round 2", lambda: _opened(reader, 2))
    set_values(reader.home / "federation.toml", submit_minutes=30, local_steps=MANY_STEPS)
    flow = flow_processes(reader.home)
    assert flow
    for process in flow:
        process.kill()
    bundle = reader.home / "reports" / "run-1-round-0002-attempt-02.json"
    reader.wait_for("report of the aborted attempt", bundle.exists)
    assert "resumes it (rounds up to 2)" in reader.said(DEPLOY)
    report = _report_in(reader, bundle.name)
    assert (report.outcome, report.rule) == ("aborted", "quorum.not_reached")
    assert "no claim fails" in reader.consortia("report", "verify", str(bundle), *TRUST)
    operators = _report_in(reader, "run-1-round-0002.json")
    assert operators.outcome == "aborted"


def _opened(reader: Reader, attempt: int) -> Verified[RoundPlan] | None:
    c = reader.coordinator()
    newest = newest_attempt(c, read_federation(c))
    if newest is None:
        return None
    record = newest.plan.record
    return newest.plan if (record.round, record.attempt) == (2, attempt) else None


def _report_in(reader: Reader, name: str) -> RoundReport:
    signed = unpack_bundle((reader.home / "reports" / name).read_bytes()).report
    keys = {key.public_key_hex for key in reader.coordinator().keys}
    return verify(signed, RoundReport, keys).record


def test_a_round_with_a_refusal_and_an_agent_killed_in_training(reader: Reader) -> None:
    """Attempt 3, to which the flow went on by itself."""
    for silo in WORDS:
        reader.start(run_of(silo))

    def in_training() -> bool:
        status = reader.status("south")
        plan_is_new = (status.get("round"), status.get("attempt")) == (2, 3)
        return (
            plan_is_new and status["phase"] == "training" and status["step"] > 2 * CHECKPOINT_STEPS
        )

    reader.wait_for("south in training", in_training)
    ranks = reader.end(run_of("south"), signal.SIGKILL)
    _, alive = psutil.wait_procs(ranks, timeout=15)
    assert ranks
    assert alive == [], "training must not outlive the agent"

    reader.start(run_of("south"))
    for who in ("coordinator", "north"):
        _rotate_storage_credential(reader, who)
    report = reader.wait_for("report of attempt 3", lambda: reader.reported(2, 3))
    assert report.outcome == "published"
    outcomes = {silo.silo: (silo.outcome, silo.rule) for silo in report.silos}
    assert outcomes == {
        "north": ("admitted", None),
        "south": ("admitted", None),
        "east": ("refused", "policy.rank"),
    }
    result = _training_result(reader, "south")
    assert result["steps"] == MANY_STEPS
    assert result["resumed_from_step"] >= CHECKPOINT_STEPS, (
        "a restarted agent goes on from the checkpoint"
    )
    assert "storage-credentials.toml was replaced" in reader.said(run_of("north"))
    assert all(silo.losses.candidate < silo.losses.base for silo in report.silos if silo.losses)
    assert left_running(reader.home) == []


def _rotate_storage_credential(reader: Reader, who: str) -> None:
    """As its operators type it, while agent, runner and flow run."""
    where = ("--state", "stack", "--home", "fed")
    said = reader.consortia("stack", "rotate", who, *where)
    if who != "coordinator":
        (accept,) = (line for line in printed_commands(said) if line[0] == "silo-agent")
        reader.run(*accept[:3], "--home", who)
    assert "is refused from now on" in reader.consortia(
        "stack", "rotate", who, *where, "--revoke-old"
    )


def _training_result(reader: Reader, silo: str) -> dict[str, int]:
    path = reader.folder / silo / "work" / "run-1" / "round-0002" / "result.json"
    return dict(json.loads(path.read_text())["result"])


def test_stop_ends_the_agent_and_its_round_can_run_as_a_flow_of_the_silos_own(
    reader: Reader,
) -> None:
    home = reader.folder / "north"
    assert "has stopped" in reader.run("silo-agent", "stop", "--home", "north")
    assert running_agent(home) is None
    del reader.background[run_of("north")]
    shown = reader.run("silo-agent", "status", "--home", "north")
    assert "does not run" in shown
    assert "STOP" in shown
    (home / "STOP").unlink()
    script = (
        "import sys; from pathlib import Path\n"
        "from aggregator.settings.federation import load_settings\n"
        "from flows.deployment.prefect_settings import use_prefect_of\n"
        "use_prefect_of(load_settings(Path(sys.argv[2])))\n"
        "from flows.round.silo_round import silo_round; print(silo_round(sys.argv[1]))"
    )
    said = reader.run(sys.executable, "-c", script, str(home), str(reader.home))
    assert said.split()[-1] == "finished"


def test_nothing_of_any_data_set_left_its_silo(reader: Reader) -> None:
    """Objects and their keys, records as they decode, logs, Prefect's state, reports, statuses."""
    c = reader.coordinator()
    buckets = [c.plans, *map(c.inbox, WORDS)]
    found: dict[str, bytes] = {}
    for bucket in buckets:
        for info in bucket.list_keys(""):
            data = bucket.get(info.key, info.size) or b""
            found[f"{bucket.name}/{info.key}"] = info.key.encode() + data + _payload(data)
    assert sum(key.endswith(".json") for key in found) > 30
    assert any("blobs/" in key for key in found)
    inside = [reader.folder / silo for silo in WORDS]
    for path in (p for p in reader.folder.rglob("*") if p.is_file()):
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


def test_a_runner_whose_prefect_is_killed_waits_and_serves_again(reader: Reader) -> None:
    before = reader.said(DEPLOY)
    (prefect,) = (p for p in recorded_processes(reader.stack) if p.name == "prefect-server")
    prefect.kill()

    def since() -> str:
        return reader.said(DEPLOY).removeprefix(before)

    reader.wait_for("waiting", lambda: "waiting for Prefect at http://" in since())
    reader.consortia("stack", "start", "--state", "stack")
    reader.wait_for("serving", lambda: "serving" in since())
    reader.end(DEPLOY)
    assert "answers again, after" in since()
    assert "Traceback" not in since()
    require_pasteable(since())


def test_the_ports_stay_and_where_they_change_it_is_said_who_has_to_follow(
    reader: Reader,
) -> None:
    for command in list(reader.background):
        reader.end(command)
    before = reader.addresses()
    start, stop = (("stack", word, "--state", "stack") for word in ("start", "stop"))
    assert "consortia stack stop" in reader.consortia(*start, fails=True), "both run"
    (storage,) = (p for p in recorded_processes(reader.stack) if p.name == "object-storage")
    storage.kill()
    assert str(reader.stack / "prefect-auth") in reader.consortia(*start)
    assert reader.addresses() == before == addresses_in_settings(reader.home)
    reader.consortia(*stop)
    reader.consortia(*start)
    assert reader.addresses() == before == addresses_in_settings(reader.home)
    reader.consortia(*stop)
    ports = remembered_ports(reader.stack)
    assert ports is not None
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((LOOPBACK, ports.prefect))
        taken.listen()
        said = reader.consortia(*start, fails=True)
    assert f"port {ports.prefect}" in said
    assert f"process {os.getpid()}" in said
    assert "--prefect-port" in said
    said = reader.consortia(*start, "--s3-port", "0", "--prefect-port", "0")
    assert reader.addresses() != before
    assert f'endpoint_url = "{reader.addresses()["endpoint_url"]}"' in said
    assert any(command[:3] == ["consortia", "stack", "use"] for command in printed_commands(said))
    said = reader.consortia("round", "start", "--home", "fed", fails=True)
    assert "consortia stack use" in said
    reader.consortia("stack", "use", "--state", "stack", "--home", "fed")
    assert addresses_in_settings(reader.home) == reader.addresses()
    assert load_settings(reader.home).purpose == "Coding assistant, research"
    reader.consortia("round", "status", "--home", "fed")
    assert json.loads((reader.stack / "ports.json").read_text()).keys() == {"s3", "prefect"}
