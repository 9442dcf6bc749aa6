"""What is handed to Slurm and Kubernetes, judged by their own tools where those are installed."""

import json
import os
import shlex
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import SiloOperatorError
from silo_agent.config import SiloConfig, parse_config
from silo_agent.nodes_settings import KubernetesSection, NodesSection
from silo_agent.restarts import ProcessDiedError, with_restarts
from silo_agent.training.memory_room import machine_bytes, room_of
from silo_agent.training.nodes.chosen import chosen_launcher, node_launcher
from silo_agent.training.nodes.hosts import Hosts
from silo_agent.training.nodes.kubernetes import Kubernetes, failed_pods, waiting_pods
from silo_agent.training.nodes.node_launcher import NotLaunchedError, answer, node_command
from silo_agent.training.nodes.slurm import Slurm, StartedJob, submitted
from silo_agent.training.processes.machine_launch import ThisMachine

PLACE = Path("/shared/silo of a 'hospital' $HOME %j/nodes-1")
HEAD = """\
silo = "north"
federation = "oncology"
storage = { endpoint_url = "https://storage.example" }
"""
KUBERNETES = """\
[training.nodes.kubernetes]
image = "registry.example/consortia:0.1"
claim = "north-home"
mount = "/shared"
limits = { memory = "64Gi" }
"""


def configured(nodes: str, training: str = "ranks = 4", home: Path = Path("/shared")) -> SiloConfig:
    section = f"[training.nodes]\ncount = 2\ninterface = 'ib0'\n{nodes}\n" if nodes else ""
    return parse_config(f"{HEAD}[training]\n{training}\n{section}".encode(), home)


def kubernetes(device: str = "cuda") -> Kubernetes:
    training = f"ranks = 4\ndevice = '{device}'"
    config = configured(f"launcher = 'kubernetes'\n{KUBERNETES}", training)
    nodes = config.training.nodes
    assert nodes is not None
    launcher = node_launcher(config, nodes, Path("/shared/ranks"))
    assert isinstance(launcher, Kubernetes)
    return launcher


def slurm(tmp_path: Path, options: str = "'--partition=gpu'", device: str = "cuda") -> Slurm:
    training = f"ranks = 4\nthreads_per_rank = 3\ndevice = '{device}'"
    config = configured(f"launcher = 'slurm'\nslurm = {{ options = [{options}] }}", training)
    nodes = config.training.nodes
    assert nodes is not None
    launcher = node_launcher(config, nodes, tmp_path)
    assert isinstance(launcher, Slurm)
    return launcher


def test_without_nodes_ranks_are_those_of_this_machine(tmp_path: Path) -> None:
    config = configured("")
    assert isinstance(chosen_launcher(config, tmp_path), ThisMachine)
    assert config.training.ranks_per_machine == 4


def test_ranks_of_one_node_share_the_memory_of_a_machine() -> None:
    alone, together = configured("").training, configured("launcher = 'slurm'").training
    assert together.ranks_per_machine == 2
    assert room_of(alone).size_bytes == int(0.9 * machine_bytes()) // 4
    assert room_of(together).size_bytes == int(0.9 * machine_bytes()) // 2


def test_a_batch_script_is_a_shell_script_that_runs_one_command_a_node(tmp_path: Path) -> None:
    script = slurm(tmp_path).script(PLACE)
    checked = subprocess.run(["/bin/bash", "-n"], input=script, text=True, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    lines = script.splitlines()
    settings = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}
    assert settings == {
        "--job-name=consortia-north",
        "--nodes=2",
        "--ntasks=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=6",
        "--gpus-per-node=2",
        "--no-requeue",
        "--partition=gpu",
    }
    words = shlex.split(lines[-1])
    assert words[:2] == ["exec", "srun"]
    assert words[-5:] == node_command(PLACE), "the path is one word, and nothing in it expands"
    assert not any("gpu" in line for line in slurm(tmp_path, "", "cpu").script(PLACE).splitlines())


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="sbatch is not installed")
def test_sbatch_understands_every_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a controller it reads all options, and then says that it cannot reach one."""
    config = tmp_path / "slurm.conf"
    config.write_text(
        "ClusterName=none\nGresTypes=gpu\nSlurmctldHost=none(127.0.0.1)\nSlurmctldPort=9\nMessageTimeout=2\n"
    )
    monkeypatch.setenv("SLURM_CONF", str(config))
    script = tmp_path / "a job.sbatch"
    command = [*slurm(tmp_path).command(), "--test-only", str(script)]
    for option, message in (
        ("", "contact slurm controller"),
        ("\n#SBATCH --nodex=1", "nrecognized option"),
    ):
        text = slurm(tmp_path).script(PLACE)
        script.write_text(text.replace("#!/bin/bash", f"#!/bin/bash{option}"))
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode != 0
        assert message in done.stderr


def test_a_job_of_kubernetes_starts_each_node_once_and_holds_no_credential() -> None:
    job = kubernetes().manifest(PLACE, "consortia-north-1")
    assert json.loads(json.dumps(job)) == job
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert (spec["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["command"] == node_command(PLACE)
    limits = {"cpu": "2", "nvidia.com/gpu": "2", "memory": "64Gi"}
    assert container["resources"]["limits"] == limits
    (cpu_only,) = kubernetes("cpu").manifest(PLACE, "j")["spec"]["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in cpu_only["resources"]["limits"]


def test_the_manifest_is_one_by_the_schema_of_kubernetes() -> None:
    validator: Any = pytest.importorskip(
        "kubernetes_validate", reason="pip install kubernetes-validate"
    )
    job = kubernetes().manifest(PLACE, "consortia-north-1")
    validator.validate(job, "1.30", strict=True)
    with pytest.raises(validator.ValidationError):
        validator.validate({**job, "spec": {**job["spec"], "completion": 2}}, "1.30", strict=True)


def test_a_home_that_pods_do_not_see_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SiloOperatorError, match=r"expected a directory below /shared, where pods"):
        kubernetes().start(tmp_path)


def test_failed_pods_are_told_by_their_number() -> None:
    said = {
        "items": [
            {"metadata": {"name": "a"}, "status": {"phase": "Running"}},
            {
                "metadata": {
                    "name": "b",
                    "annotations": {"batch.kubernetes.io/job-completion-index": "1"},
                },
                "status": {"phase": "Failed", "reason": "Evicted"},
            },
        ]
    }
    assert failed_pods(said) == {1: "pod b failed: Evicted"}


def test_a_command_that_is_missing_or_fails_is_named_with_its_last_words() -> None:
    with pytest.raises(SiloOperatorError, match=r"`sbatch-7`: expected .*; found No such file"):
        answer(["sbatch-7"], "see squeue")
    command = ["sh", "-c", "echo one >&2; echo invalid partition >&2; exit 1"]
    with pytest.raises(NotLaunchedError, match=r"exit code 1: invalid partition\. To fix it: see"):
        answer(command, "see squeue")


def test_a_bad_minute_of_a_queue_costs_a_start_and_not_the_agent(tmp_path: Path) -> None:
    """What fails or hangs is started again, after a while; what is not installed is not."""
    flag = tmp_path / "seen"
    failing = f"test -e '{flag}' && echo 7 || {{ touch '{flag}'; echo no answer >&2; exit 1; }}"

    class SoonAgainError(NotLaunchedError):
        wait_seconds = 0.2

    def start() -> str:
        try:
            return answer(["sh", "-c", failing], "see squeue")
        except NotLaunchedError as error:
            raise SoonAgainError(
                error.problem, expected=error.expected, found=error.found, action=error.action
            ) from None

    began = time.monotonic()
    assert with_restarts(start, 1) == "7"
    assert time.monotonic() - began > 0.2
    assert NotLaunchedError.wait_seconds > 1
    with pytest.raises(NotLaunchedError, match="found no end within 0 s"):
        answer(["sleep", "9"], "see squeue", seconds=0.1)
    with pytest.raises(SiloOperatorError) as missing:
        answer(["sbatch-7"], "see squeue")
    assert not isinstance(missing.value, ProcessDiedError)


@pytest.mark.parametrize("name", ["SSH_AUTH_SOCK", "KRB5CCNAME", "KUBERNETES_SERVICE_HOST"])
def test_what_a_launcher_finds_its_cluster_by_is_passed_on(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "there")
    assert f"{name}=there" in answer(["env"], "").splitlines()


@pytest.mark.parametrize(
    ("said", "job"),
    [
        ("12", ("12", None)),
        ("12;north-2", ("12", "north-2")),
        ("Your account has 3 hours left.\n12\n", ("12", None)),
    ],
)
def test_the_number_of_a_job_is_in_the_last_line_of_sbatch(
    said: str, job: tuple[str, str | None]
) -> None:
    assert submitted(said) == job


@pytest.mark.parametrize("said", ["", "Submitted batch job 12", "12;", "--all"])
def test_what_is_no_number_of_a_job_is_told(said: str) -> None:
    with pytest.raises(SiloOperatorError, match=r"answer of sbatch: expected the number"):
        submitted(said)


def squeue(directory: Path, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of this name that logs its arguments."""
    directory.mkdir()
    for name in ("squeue", "scancel"):
        command = directory / name
        command.write_text(f'#!/bin/sh\necho {name} "$@" >> {directory}/asked\n{says}\n')
        command.chmod(0o700)
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)


@pytest.mark.parametrize(
    ("says", "is_lost"),
    [
        ("echo RUNNING", False),
        ("echo CLUSTER: north; echo REQUEUED", False),
        ("echo SIGNALING", False),
        ("echo slow controller >&2; exit 1", False),
        ("echo TIMEOUT", True),
        ("echo CLUSTER: north; echo PREEMPTED", True),
        ("true", True),
        ("echo slurm_load_jobs error: Invalid job id specified >&2; exit 1", True),
    ],
)
def test_a_job_is_lost_in_the_states_that_are_ends(
    says: str, is_lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue(tmp_path / "bin", says, monkeypatch)
    started = StartedJob("12", "north", tmp_path / "log", _asked=float("-inf"))
    assert bool(started.lost()) is is_lost
    with suppress(SiloOperatorError):
        started.end()
    asked = (tmp_path / "bin" / "asked").read_text().splitlines()
    assert [line.split()[:2] for line in asked] == [
        ["squeue", "--clusters=north"],
        ["scancel", "--clusters=north"],
    ]


def test_a_pod_that_cannot_say_a_word_is_told_by_the_cluster() -> None:
    container = kubernetes().manifest(PLACE, "j")["spec"]["template"]["spec"]["containers"][0]
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert kubernetes().manifest(PLACE, "j")["spec"]["ttlSecondsAfterFinished"] > 0
    states = {
        0: ("Failed", {"terminated": {"reason": "Error", "message": "a\nNo module named x\n"}}),
        1: ("Pending", {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}),
    }
    items = [
        {
            "metadata": {
                "name": f"p{number}",
                "annotations": {"batch.kubernetes.io/job-completion-index": str(number)},
            },
            "status": {"phase": phase, "containerStatuses": [{"state": state}]},
        }
        for number, (phase, state) in states.items()
    ]
    assert failed_pods({"items": items}) == {0: "pod p0 failed: Error: No module named x"}
    assert waiting_pods({"items": items}) == {1: "pod p1 waits: ImagePullBackOff: no such image"}


def test_credentials_of_the_agent_do_not_reach_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the agent alone")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    said = answer(["env"], "")
    assert "AWS_SECRET" not in said and "SLURM_CONF=/etc/slurm.conf" in said


def test_hosts_come_from_the_hostfile_of_the_home(tmp_path: Path) -> None:
    (tmp_path / "hostfile").write_text("gpu-1 slots=2\ngpu-2 slots=2\n")
    config = configured("launcher = 'hosts'", home=tmp_path)
    nodes = config.training.nodes
    assert nodes is not None
    launcher = node_launcher(config, nodes, tmp_path)
    assert isinstance(launcher, Hosts)
    assert [host.name for host in launcher.hosts] == ["gpu-1", "gpu-2"]
    assert launcher.remote[0] == "ssh"


@pytest.mark.parametrize(
    ("nodes", "training", "message"),
    [
        ("launcher = 'slurm'", "ranks = 3", "multiple of count"),
        ("launcher = 'pbs'", "ranks = 2", "training.nodes.launcher"),
        ("launcher = 'kubernetes'", "ranks = 2", r"section \[training.nodes.kubernetes\]"),
        ("launcher = 'slurm'\nslurm = { options = ['rm -rf /'] }", "ranks = 2", "slurm.options"),
        ("launcher = 'slurm'\nquiet_seconds = 0.1", "ranks = 2", "quiet_seconds"),
        ("launcher = 'hosts'\ninterface_name = 'x'", "ranks = 2", "interface_name"),
        ("launcher = 'slurm'\nslurm = { options = ['--nodes=9'] }", "ranks = 2", "found --nodes,"),
        ("launcher = 'slurm'\nslurm = { options = ['--arr=1-3'] }", "ranks = 2", "found --arr,"),
        ("launcher = 'slurm'\nslurm = { options = ['--wait'] }", "ranks = 2", "found --wait,"),
    ],
)
def test_settings_that_cannot_be_are_named(nodes: str, training: str, message: str) -> None:
    with pytest.raises(SiloOperatorError, match=message):
        configured(nodes, training)


def test_an_interface_has_a_name_of_its_own() -> None:
    """NCCL takes what follows a colon for a port, and an alias is an address of the same one."""
    fields = {"launcher": "hosts", "count": 2}
    assert NodesSection.model_validate({**fields, "interface": "ib0.7"}).interface == "ib0.7"
    with pytest.raises(ValueError, match="interface"):
        NodesSection.model_validate({**fields, "interface": "ib0:1"})


def test_a_mount_is_the_same_for_all() -> None:
    with pytest.raises(ValueError, match="absolute path, the same for the agent and the pods"):
        KubernetesSection(image="i", claim="c", mount=Path("shared"))
