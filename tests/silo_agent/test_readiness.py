"""Whatever one thing a silo lacks, the checklist names it, says what to do, and goes on."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records import Membership
from infra.disk.model_files import model_digest
from infra.encryption.identities import load_identity, new_identity
from infra.signing_keys import create_key
from silo_agent.readiness.checklist import Item, refusals
from tests.printed_commands import printed_commands, require_pasteable
from tests.silo_agent.ready_silo import NOW, PURPOSE, ReadySilo

pytestmark = pytest.mark.long


@pytest.fixture
def silo(tmp_path: Path) -> ReadySilo:
    return ReadySilo(tmp_path)


def test_of_a_ready_silo_nothing_is_refused(silo: ReadySilo) -> None:
    items = silo.items()
    assert refusals(items.values()) == []
    assert items["storage"].state == "not checked"
    settled = ("membership", "credential", "contract", "signatures", "policy", "purpose", "data")
    assert {items[name].state for name in (*settled, "base model small")} == {"there"}


def _unlink(name: str) -> Callable[[ReadySilo], object]:
    return lambda silo: (silo.home / name).unlink()


def _edit(name: str, old: str, new: str) -> Callable[[ReadySilo], object]:
    return lambda silo: silo.edit(name, old, new)


FAULTS: dict[str, tuple[Callable[[ReadySilo], object], str, str, str]] = {
    "no membership": (_unlink("membership.json"), "membership", "missing", "silo-agent accept"),
    "a membership that is none": (
        lambda silo: (silo.home / "membership.json").write_text("{}"),
        "membership",
        "wrong",
        "",
    ),
    "no credential": (
        _unlink("keys/storage-credentials.toml"),
        "credential",
        "missing",
        "silo-agent accept",
    ),
    "a credential that others can read": (
        lambda silo: (silo.home / "keys" / "storage-credentials.toml").chmod(0o644),
        "credential",
        "wrong",
        "chmod 600",
    ),
    "no findings key": (_unlink("keys/findings.key"), "keys", "wrong", "backup"),
    "no contract": (_unlink("contract.yaml"), "contract", "missing", "consortia contract lint"),
    "a contract that is a draft": (
        _edit("contract.yaml", "status: active", "status: draft"),
        "contract",
        "wrong",
        "",
    ),
    "a contract edited after it was signed": (
        _edit("contract.yaml", "value: 20", "value: 21"),
        "signatures",
        "wrong",
        "consortia contract sign",
    ),
    "no agreement": (
        _unlink("contract.agreement.json"),
        "signatures",
        "missing",
        "consortia contract sign",
    ),
    "a policy that takes no part": (
        _edit("policy.toml", "take_part = true", "take_part = false"),
        "policy",
        "wrong",
        "policy.toml",
    ),
    "a policy that does not trust storage": (
        _edit("policy.toml", "deltas = true", "deltas = false"),
        "policy",
        "wrong",
        "policy.toml",
    ),
    "a policy that cannot be read": (
        _edit("policy.toml", "max_rank = 64", "max_rank = 0"),
        "policy",
        "wrong",
        "policy.toml",
    ),
    "a purpose that the policy does not allow": (
        _edit("policy.toml", PURPOSE, "Something else"),
        "purpose",
        "wrong",
        "word for word",
    ),
    "no model": (
        lambda silo: shutil.rmtree(silo.model),
        "base model small",
        "missing",
        "model's files",
    ),
    "a model of other bytes": (
        lambda silo: (silo.model / "config.json").write_text('{"a": 1}'),
        "base model small",
        "wrong",
        "digest",
    ),
    "a licence that does not allow the use": (
        _edit("policy.toml", '"Apache-2.0"', '"CC-BY-ND-4.0"'),
        "base model small",
        "wrong",
        "licence",
    ),
    "no data": (_unlink("data/records.jsonl"), "data", "missing", "data"),
    "more ranks than GPUs": (
        _edit("silo-agent.toml", 'device = "cpu"', 'device = "cuda"'),
        "device",
        "wrong",
        "silo-agent.toml",
    ),
    "a kill switch": (
        lambda silo: (silo.home / "STOP").touch(),
        "kill switch",
        "wrong",
        "--clear-stop",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_missing_or_wrong_is_named_with_the_next_step(silo: ReadySilo, fault: str) -> None:
    if fault == "more ranks than GPUs" and shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    before = silo.items()
    do, name, state, step = FAULTS[fault]
    do(silo)
    items = silo.items()
    assert items[name].state == state, items[name]
    assert step in items[name].next_step
    assert name in refusals(items.values())
    families = {known.split()[0] for known in before} - {"memory"}
    assert families <= {known.split()[0] for known in items}, "the others are still told"


def test_each_node_is_asked_and_one_that_cannot_is_wrong(silo: ReadySilo, tmp_path: Path) -> None:
    """Over a remote shell that stays on this machine."""
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\nexec sh -c "$2"\n')
    shell.chmod(0o700)
    nodes = f'launcher = "hosts"\ncount = 1\ninterface = "lo"\nhosts.remote = ["{shell}"]'
    settings = silo.home / "silo-agent.toml"
    settings.write_text(f"{settings.read_text()}\n[training.nodes]\n{nodes}\n")
    item = silo.items()["nodes"]
    assert (item.state, "hostfile" in item.detail) == ("wrong", True)
    (silo.home / "hostfile").write_text("gpu-1 slots=1\n")
    items = silo.items()
    assert items["nodes"].state == "there", items["nodes"]
    assert f"hosts, 1 ranks each, over lo; all see {silo.home}" in items["nodes"].detail
    assert "device" not in items, "that of each node is asked for when ranks start there"
    silo.edit("silo-agent.toml", 'interface = "lo"', 'interface = "ib7"')
    item = silo.items()["nodes"]
    assert (item.state, "expected ib7, up" in item.detail) == ("wrong", True)


@pytest.mark.parametrize(("came", "state"), [("", "warning"), ("gpu-1", "wrong")])
def test_a_queue_may_be_late_and_a_node_may_not_stay_behind_the_others(
    came: str, state: str, silo: ReadySilo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is a command of its name; a node that `came` ends when it is asked to."""
    commands = tmp_path / "bin"
    commands.mkdir()
    sign = f"""for script; do :; done; cd "${{script%/*}}"; printf "1 {came}" > node-0000-alive
    (while test -e launch.json && ! test -e end; do sleep 0.1; done
    echo '{{"host": "{came}", "code": 0}}' > node-0000-ended.json) > /dev/null 2>&1 &
    echo 7"""
    for name, does in (("sbatch", sign if came else "echo 7"), ("squeue", "echo PENDING")):
        (commands / name).write_text(f"#!/bin/sh\n{does}\n")
        (commands / name).chmod(0o700)
    shutil.copy(commands / "squeue", commands / "scancel")
    monkeypatch.setenv("PATH", str(commands), prepend=os.pathsep)
    nodes = 'launcher = "slurm"\ncount = 2\ninterface = "lo"\ncheck_seconds = 1'
    settings = silo.home / "silo-agent.toml"
    settings.write_text(f"{settings.read_text()}\n[training.nodes]\n{nodes}\n")
    silo.edit("silo-agent.toml", "ranks = 1 ", "ranks = 2 ")
    item = silo.items()["nodes"]
    assert item.state == state, item
    assert "Slurm job 7: PENDING" in item.detail


def test_what_expires_is_named_when_it_has(silo: ReadySilo) -> None:
    later = silo.items(NOW + timedelta(days=400))
    assert {later[name].state for name in ("membership", "contract")} == {"wrong"}
    soon = silo.items(NOW + timedelta(days=290))
    assert soon["membership"].state == "warning"


def test_a_membership_of_others_is_not_taken(silo: ReadySilo, tmp_path: Path) -> None:
    before = (silo.home / "membership.json").read_bytes()
    other = create_key(tmp_path / "other.pem").public_key_hex
    for offered in (silo.membership(other), silo.membership(federation="another")):
        with pytest.raises(SiloOperatorError, match="membership that was handed over"):
            silo.be_handed_over(offered)
    silo.root = create_key(tmp_path / "another-root.pem")
    with pytest.raises(SiloOperatorError, match="other root keys"):
        silo.be_handed_over(silo.membership())
    assert (silo.home / "membership.json").read_bytes() == before


def test_what_is_encrypted_for_this_silo_can_be_read_here(silo: ReadySilo) -> None:
    assert "recipient" not in silo.items()
    named = {"coordinator_recipient": new_identity().recipient}

    def members(recipient: str | None) -> Membership:
        plain = silo.membership()
        silos = tuple(m.model_copy(update={"recipient": recipient}) for m in plain.silos)
        return plain.model_copy(update={**named, "silos": silos})

    def looked() -> Item:
        return silo.items()["recipient"]

    path = silo.home / "keys" / "identity.txt"
    (silo.home / "membership.json").unlink()
    silo.be_handed_over(members(None))
    assert looked().state == "warning" and "key --recipient" in looked().next_step
    silo.edit("policy.toml", "with_deltas = true", "with_deltas = false")
    assert "trust_storage_with_deltas" in silo.items()["policy"].detail
    (silo.home / "membership.json").unlink()
    silo.be_handed_over(members(load_identity(path).recipient))
    assert looked().state == "there" and silo.items()["policy"].state == "there"
    path.chmod(0o644)
    assert looked().state == "wrong" and "chmod 600" in looked().next_step
    path.unlink()
    assert looked().state == "wrong" and "no identity here" in looked().detail


def test_what_was_handed_over_is_private(silo: ReadySilo) -> None:
    credential = silo.home / "keys" / "storage-credentials.toml"
    assert credential.stat().st_mode & 0o077 == 0


def test_the_command_ends_with_0_only_when_a_round_could_be_run(silo: ReadySilo) -> None:
    done = silo.check()
    assert done.returncode == 0, done.stdout + done.stderr
    contract = silo.home / "contract.yaml"
    contract.write_text(contract.read_text() + "# edited\n")
    (silo.home / "membership.json").unlink()
    done = silo.check()
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: readiness of the silo: expected everything")
    assert "missing or wrong: membership" in done.stderr
    assert require_pasteable(done.stdout + done.stderr) > 0
    accept = ["silo-agent", "accept", "HAND-OVER-FOLDER", "--home", str(silo.home)]
    assert accept in printed_commands(done.stdout)


def test_a_silo_of_few_records_is_told_before_a_round_that_its_policy_lets_nothing_go(
    silo: ReadySilo,
) -> None:
    silo.edit("policy.toml", 'too_few = "allow"', 'too_few = "refuse"')
    done = silo.check()
    assert done.returncode == 1
    assert done.stderr.startswith("error: leak check: expected 200 records for training")
    assert 'set too_few = "allow"' in done.stderr


def test_a_new_home_says_what_comes_next(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    command = [sys.executable, "-m", "silo_agent.cli", "init", "--silo", "north"]
    command += ["--federation", "oncology", "--home"]
    done = subprocess.run(
        [*command, str(home), "--endpoint-url", "http://127.0.0.1:9"],
        env=os.environ | {"COLUMNS": "40"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    checklist = home / "NEXT-STEPS.md"
    assert str(checklist) in done.stdout.splitlines()[-3]
    assert require_pasteable(done.stdout) == 1
    text = checklist.read_text()
    for name in ("contract.yaml", "policy.toml", "membership.json", "records.jsonl"):
        assert str(home / name) in text or str(home / "data" / name) in text
    assert [c[:3] for c in printed_commands(text)][:2] == [
        ["silo-agent", "check", "--home"],
        ["consortia", "contract", "lint"],
    ]
    assert require_pasteable(text) >= 6


def plan_shown(silo: ReadySilo, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "silo_agent.cli", "plan", "--home", str(silo.home), *options],
        env=os.environ | {"COLUMNS": "40"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_memory_of_a_round_is_planned_on_one_screen(silo: ReadySilo) -> None:
    by_hand = ("--length", "512", "--rank", "4", "--sequences", "6")
    done = plan_shown(silo, *by_hand)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) < 30, "one screen"
    assert "model, rank 4, length 512" in lines[0]
    parts = [float(line.split()[-2]) for line in lines if line.endswith(" GB")]
    assert sum(parts[:-1]) == pytest.approx(parts[-1], abs=0.05), "the parts, then the whole"
    assert any(line.startswith("chosen: stage 2, micro-batch 1") for line in lines)
    rows = [line.split() for line in lines if line.split()[1:2] in (["yes"], ["no"])]
    assert [row[:2] for row in rows] == [[s, c] for s in "123" for c in ("no", "yes")]
    assert all(row[-3:] == ["6", "of", "6"] for row in rows)
    silo.edit("silo-agent.toml", "# memory_gb = 8.0", "memory_gb = 0.25")
    short = plan_shown(silo, *by_hand)
    assert short.returncode == 1
    assert "nothing fits; least takes: stage 2" in short.stdout
    assert short.stdout.count("does not fit") == 6
    assert short.stderr.startswith("error: memory of a training process: expected 0.")
    item = silo.items()["memory"]
    assert (item.state, item.name in refusals([item])) == ("warning", False), "no plan yet"
    assert "at the policy's limits" in item.detail and "0.25 GB" in item.detail


def test_what_a_personal_adapter_costs_is_told(silo: ReadySilo) -> None:
    assert "personal adapter" not in silo.items()
    silo.edit("silo-agent.toml", "# [personal] ", "[personal] ")
    silo.edit("silo-agent.toml", '# method = "dual"', 'method = "dual"')
    item = silo.items()["personal adapter"]
    assert item.state == "there"
    assert item.detail.startswith("dual, while the others are waited for")
    assert "is told with the other losses" in item.detail
    silo.edit("silo-agent.toml", "# every_round = true", "every_round = false")
    item = silo.items()["personal adapter"]
    assert item.detail.startswith("dual, only when `silo-agent personalise` is run")
    assert "its loss stays here" in item.detail


def test_a_setting_that_limits_the_steps_is_told(silo: ReadySilo) -> None:
    assert "steps" not in silo.items()
    silo.edit("silo-agent.toml", "# steps_at_most = 10", "steps_at_most = 10")
    assert (silo.items()["steps"].state, silo.items()["steps"].detail) == (
        "there",
        "at most 10 in a round",
    )


def test_without_a_plan_a_length_is_asked_for(silo: ReadySilo) -> None:
    done = plan_shown(silo)
    assert done.returncode == 1
    assert "expected a newest plan in the federation's feed, or a --length" in done.stderr


def test_a_model_without_a_template_is_there_for_plain_text_alone(silo: ReadySilo) -> None:
    before = model_digest(silo.model)
    (silo.model / "chat_template.jinja").unlink()
    silo.edit("policy.toml", before, model_digest(silo.model))
    assert silo.items()["base model small"].state == "wrong"
    silo.edit("contract.yaml", "{name: prompt, ", "{name: text, ")
    contract = (silo.home / "contract.yaml").read_text()
    answer = next(line for line in contract.splitlines() if "name: answer" in line)
    silo.edit("contract.yaml", answer + "\n", "")
    assert silo.items()["base model small"].state == "there"


def test_pictures_are_not_copied_and_need_no_room_for_it(silo: ReadySilo) -> None:
    folder = silo.home / "data" / "pictures"
    folder.mkdir()
    (folder / "metadata.csv").write_text("file_name,answer,licence\na.png,A lighthouse,CC0-1.0\n")
    with (folder / "a.png").open("wb") as file:
        file.truncate(shutil.disk_usage(folder).free)
    assert silo.items()["disk"].state == "wrong"
    contract = silo.home / "contract.yaml"
    needless = re.compile(r"^      - \{name: (?:id|subject|source), .*\n", re.MULTILINE)
    text = needless.sub("", contract.read_text()).replace("records.jsonl", "pictures")
    text = text.replace("format: jsonl", "format: image-text").replace(
        "{name: prompt, logicalType: string,",
        "{name: image, logicalType: string, physicalName: file_name,",
    )
    contract.write_text(text)
    items = silo.items()
    assert (items["data"].state, items["disk"].state) == ("there", "there")
