"""Ranks on several nodes: two real launchers on loopback, what ends them, and what is said.

The remote shell of these nodes is a shell of this machine, which ignores the host.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from data_contracts.errors import ConsortiaError, SiloOperatorError
from infra.processes.exit_codes import DONE, FAULT, ORPHANED
from infra.processes.process_tree import executes, kill_and_wait
from silo_agent.cli import STOP_WAIT_SECONDS
from silo_agent.nodes_settings import NodesSection
from silo_agent.restarts import ProcessDiedError
from silo_agent.training.nodes.group import END_SECONDS, NodeGroup, NotComeError, SomeNotComeError
from silo_agent.training.nodes.hosts import Host, Hosts, read_hostfile
from silo_agent.training.nodes.meeting_place import (
    Beats,
    Ended,
    MeetingPlace,
    NodesLaunch,
    Pulse,
    own_packages,
)
from silo_agent.training.nodes.network_interface import address_of, first_address
from silo_agent.training.nodes.node import (
    INTERFACE_VARIABLE,
    MEETING_VARIABLE,
    PORT_VARIABLE,
    variables_of,
)
from silo_agent.training.nodes.node import main as node
from silo_agent.training.nodes.node_launcher import (
    ALL,
    ASK_SECONDS,
    GIVE_UP_SECONDS,
    MODULE,
    START_SECONDS,
)
from silo_agent.training.nodes.several_nodes import CHECKED, SeveralNodes
from silo_agent.training.processes.failed_process import first_of
from silo_agent.training.processes.launch import run_training
from silo_agent.training.processes.machine_launch import GroupShape
from silo_agent.training.processes.resident_ranks import ResidentRanks
from silo_agent.training.results import Progress, TrainingResult
from silo_agent.training.run_files import exit_code_of, read_failure, write_failure
from tests.silo_agent.training.tiny_jobs import TinySilo, tiny_recipe

pytestmark = pytest.mark.long

SHELL = '#!/bin/sh\nexec sh -c "$2"\n'
LOOPBACK = "lo"


class TwoNodes:
    """Two nodes of one rank each, and the ranks that stay there."""

    def __init__(self, directory: Path, quiet_seconds: float = 10, **settings: object) -> None:
        self.directory = directory
        self.shell = directory / "shell"
        directory.mkdir()
        self.shell.write_text(SHELL)
        self.shell.chmod(0o700)
        fields = {"launcher": "hosts", "count": 2, "interface": LOOPBACK, **settings}
        self.settings = NodesSection.model_validate({**fields, "quiet_seconds": quiet_seconds})
        self.launcher = SeveralNodes(self.settings, self.hosts, directory)
        self.ranks = ResidentRanks(directory, 600, launcher=self.launcher)

    def hosts(self, logs: Path) -> Hosts:
        hosts = (Host("gpu-1", 1), Host("gpu-2", 1))
        return Hosts((str(self.shell),), hosts, logs)

    def check(self, *folders: Path) -> list[str]:
        shape = GroupShape(self.directory, "cpu", 2, 1)
        return self.launcher.check(shape, (self.directory, *folders))


@pytest.fixture(autouse=True)
def mask_of_files() -> Iterator[None]:
    """A node's own is for its whole process, which here goes on with other tests."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[TwoNodes]:
    nodes = TwoNodes(tmp_path / "ranks of a silo")
    yield nodes
    nodes.ranks.end()


def node_processes() -> list[psutil.Process]:
    """The node's own processes below this one, by number."""
    found = {}
    for each in psutil.Process().children(recursive=True):
        # Just ended, and not collected yet.
        with suppress(psutil.NoSuchProcess):
            command = each.cmdline()
            if MODULE in command:
                found[command[-1]] = each
    return [found[number] for number in sorted(found)]


def a_launch(directory: Path, **changes: object) -> NodesLaunch:
    fields = {
        "nodes": 2,
        "ranks_per_node": 1,
        "threads": 1,
        "device": "cpu",
        "folders": (directory,),
        "orders": directory,
        "logs": directory,
        "interface": LOOPBACK,
        "port": 0,
        "quiet_seconds": 2,
        "packages": own_packages(),
    }
    return NodesLaunch.model_validate({**fields, **changes})


# Where no other file has asked for them, four launches begin here.
@pytest.mark.timeout(900)
@pytest.mark.stack
def test_two_nodes_train_the_very_adapter_of_one_machine_and_a_dead_one_is_named(
    silo: TinySilo, nodes: TwoNodes, zero_2: TrainingResult
) -> None:
    others = set(psutil.Process().children(recursive=True))
    trained = run_training(silo.job("ranks-on-two-nodes"), ranks=nodes.ranks)
    assert trained.adapter.read_bytes() == zero_2.adapter.read_bytes()
    processes = [p for p in psutil.Process().children(recursive=True) if p not in others]
    listening = {
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}, "the ranks meet on the named interface alone"
    first, second = node_processes()

    def kill_the_second(progress: Progress) -> None:
        if progress.step == 4:
            kill_and_wait([*second.children(recursive=True), second])

    long = silo.job("a-node-that-dies", recipe=tiny_recipe(400))
    with pytest.raises(ProcessDiedError, match=r"training node 1 .*shell gpu-2: .*") as raised:
        run_training(long, ranks=nodes.ranks, on_progress=kill_the_second)
    assert "goes on from the last checkpoint" in raised.value.action
    assert not any(map(executes, [*processes, first, second]))


def test_a_check_asks_each_node_and_leaves_nothing(nodes: TwoNodes, tmp_path: Path) -> None:
    assert len(nodes.check(tmp_path)) == 2
    assert [path.name for path in nodes.directory.iterdir() if path.is_dir()] == []
    assert node_processes() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interface": "ib7"}, "expected ib7, up, as .training.nodes. interface says; found .*lo"),
        ({"folders": (Path("/no/model"),)}, "expected to see /no/model; found no such directory"),
        ({"packages": {"torch": "1.0"}}, r"expected torch 1\.0, as the agent; found torch 2"),
    ],
)
def test_a_node_that_cannot_do_its_part_says_why(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    place = MeetingPlace(tmp_path)
    place.open(a_launch(tmp_path, is_check=True, **changes))
    assert node([str(tmp_path), "1"]) == FAULT
    found = json.loads(place.failure(1).read_bytes())
    error = ConsortiaError(**{n: found[n] for n in ("problem", "expected", "found", "action")})
    with pytest.raises(ConsortiaError, match=message):
        raise error
    assert place.ended(1) is None


def test_what_a_node_says_becomes_the_error_of_the_launch(tmp_path: Path) -> None:
    nodes = TwoNodes(tmp_path / "ranks", interface="ib7")
    with pytest.raises(SiloOperatorError, match=r"network interface of node .*expected ib7"):
        nodes.check()


def test_a_node_that_does_not_see_the_files_says_so_where_its_command_logs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert node([str(tmp_path / "gone"), "0"]) == FAULT
    assert "mount the file system with the silo's home on all nodes" in capfd.readouterr().err


def test_a_remote_shell_that_fails_is_a_lost_node_with_its_last_words(nodes: TwoNodes) -> None:
    nodes.shell.write_text("#!/bin/sh\necho ssh: connect to host $1: no route >&2\nexit 255\n")
    with pytest.raises(ProcessDiedError) as raised:
        nodes.check()
    # Both fail at once: either may be looked at first.
    lost = re.search(r"node ([01]): expected a sign of life", str(raised.value))
    assert lost is not None
    last_words = f"ssh: connect to host gpu-{int(lost[1]) + 1}: no route"
    assert f"exit code 255; its last line: {last_words}" in raised.value.found


def test_nodes_that_do_not_come_are_counted(tmp_path: Path) -> None:
    others = psutil.Process().children()
    nodes = TwoNodes(tmp_path / "ranks", check_seconds=1)
    nodes.shell.write_text("#!/bin/sh\nexec sleep 60\n")
    began = time.monotonic()
    with pytest.raises(ProcessDiedError, match="nodes 0, 1: expected 2 nodes within 1 s; found 0"):
        nodes.check()
    assert time.monotonic() - began < 30
    assert psutil.Process().children() == others


def test_a_remote_shell_that_is_not_there_is_named(tmp_path: Path) -> None:
    hosts = Hosts((str(tmp_path / "ssh"),), (Host("gpu-1", 1),), tmp_path)
    with pytest.raises(SiloOperatorError, match=r"command .*/ssh; found No such file"):
        hosts.start(tmp_path)


@pytest.mark.stack
def test_a_node_that_hears_nothing_of_its_agent_ends_its_ranks(tmp_path: Path) -> None:
    place = MeetingPlace(tmp_path)
    place.open(a_launch(tmp_path))
    Beats(place.node(1), 2).beat_if_due()
    command = [sys.executable, "-m", MODULE, str(tmp_path), "0"]
    with subprocess.Popen(command, env=os.environ) as started:
        watched = psutil.Process(started.pid)
        while not (below := watched.children()):
            assert started.poll() is None
            time.sleep(0.05)
        assert started.wait(30) == DONE
    assert not any(map(executes, below))
    ended = place.ended(0)
    assert ended is not None and ended.code
    group = NodeGroup(place, a_launch(tmp_path), StillQueued(), 60)
    while group.exit_code() is None:
        time.sleep(0.02)
    error = group.failed(1).error()
    assert isinstance(error, ProcessDiedError)
    assert error.found == "it heard nothing of the agent for 2 s"


@pytest.mark.parametrize("is_closed", [False, True])
def test_no_rank_is_started_before_all_nodes_have_come(is_closed: bool, tmp_path: Path) -> None:
    """The first of a queue waits for the last as long as its agent does; ranks only for minutes."""
    place = MeetingPlace(tmp_path)
    place.open(a_launch(tmp_path))
    if is_closed:
        place.close()
    began = time.monotonic()
    assert node([str(tmp_path), "0"]) == DONE
    assert is_closed or time.monotonic() - began > 2, "what its agent is given to be heard of"
    assert place.ended(0) == Ended(host=socket.gethostname(), code=DONE if is_closed else ORPHANED)
    assert not list(tmp_path.glob("log-*"))


def test_ranks_that_do_not_meet_are_started_again(tmp_path: Path) -> None:
    from silo_agent.training.ranks.meeting import store_of_nodes

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(MEETING_VARIABLE, str(tmp_path))
        code = exit_code_of(
            lambda: store_of_nodes(1, 2, timedelta(seconds=0)), tmp_path / "failure.json"
        )
    failure = read_failure(tmp_path / "failure.json")
    assert (code, type(failure)) == (FAULT, ProcessDiedError)
    assert "see the log of rank 0" in str(failure)


def test_signs_of_life_are_told_by_what_they_say_and_not_by_any_clock(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    pulse, beats = Pulse(path), Beats(path, 1.0, "gpu-1")
    assert pulse.words == ""
    beats.beat_if_due()
    assert pulse.seconds_quiet() < 0.05
    assert pulse.words == "gpu-1"
    beats.beat_if_due()
    os.utime(path, (0, 0))
    time.sleep(0.15)
    assert pulse.seconds_quiet() > 0.1, "not due, so nothing new"
    beats.beat_if_due()
    os.utime(path, (0, 0))
    assert pulse.seconds_quiet() < 0.05


def test_a_rank_that_was_killed_is_to_blame_before_those_that_lost_it(tmp_path: Path) -> None:
    nodes = TwoNodes(tmp_path / "ranks")
    nodes.shell.write_text("#!/bin/sh\n")
    logs = {rank: tmp_path / f"log-rank-{rank}.txt" for rank in (0, 1)}
    for log in logs.values():
        log.write_text("RuntimeError: Connection reset by peer\n")
    place = MeetingPlace(tmp_path)
    place.say_ended(0, Ended(host="gpu-1", code=1, ranks={0: 1}))
    place.say_ended(1, Ended(host="gpu-2", code=1, ranks={1: -9}))
    started = nodes.hosts(tmp_path).start(tmp_path)
    group = NodeGroup(place, a_launch(tmp_path), started, 60)
    assert group.exit_code() == 1
    error = group.failed(1, tmp_path).error()
    started.end()
    assert "rank 1 on node 1 (gpu-2): expected exit code 0; found signal SIGKILL" in str(error)


class StillQueued:
    """Nodes of which a launcher knows nothing."""

    def lost(self) -> dict[int, str]:
        return {}

    def waiting(self) -> dict[int, str]:
        return {1: "pod b waits: ImagePullBackOff"}

    def end(self) -> None:
        """There is nothing to end."""


class EndedJob:
    """Nodes of a queue that says that the whole job is over, and no more."""

    def lost(self) -> dict[int, str]:
        return {ALL: "Slurm job 7: FAILED"}

    def waiting(self) -> dict[int, str]:
        return self.lost()

    def end(self) -> None:
        """There is nothing to end."""


def test_a_silent_node_is_named_before_the_job_that_ended_with_it(tmp_path: Path) -> None:
    place, launch = MeetingPlace(tmp_path), a_launch(tmp_path)
    group = NodeGroup(place, launch, EndedJob(), 60)
    first, second = (Beats(place.node(n), launch.quiet_seconds, f"gpu-{n + 1}") for n in (0, 1))
    second.beat_if_due()
    while group.exit_code() is None:
        first.beat_if_due()
        time.sleep(0.02)
    assert "training node 1 (gpu-2): expected a sign of life" in str(group.failed(1).error())
    nobody = NodeGroup(MeetingPlace(tmp_path / "none"), launch, EndedJob(), 60)
    while nobody.exit_code() is None:
        time.sleep(0.02)
    assert "training nodes: expected" in str(nobody.failed(1).error())
    assert nobody.failed(1).error().found == "Slurm job 7: FAILED"


def test_a_job_that_ends_with_all_its_nodes_is_named_and_none_of_them(tmp_path: Path) -> None:
    """As at a time limit: the nodes are killed together, and cannot say a word."""
    place, launch = MeetingPlace(tmp_path), a_launch(tmp_path)
    group = NodeGroup(place, launch, EndedJob(), 60)
    for number in (0, 1):
        Beats(place.node(number), launch.quiet_seconds, f"gpu-{number}").beat_if_due()
    while group.exit_code() is None:
        time.sleep(0.02)
    error = group.failed(1).error()
    assert (error.problem, error.found) == ("training nodes", "Slurm job 7: FAILED")


def test_nodes_that_came_without_the_others_are_no_queue_that_is_late(tmp_path: Path) -> None:
    place, launch = MeetingPlace(tmp_path), a_launch(tmp_path)
    none = NodeGroup(place, launch, StillQueued(), 0)
    assert none.exit_code() == 1
    assert isinstance(none.failed(1).error(), NotComeError)
    Beats(place.node(0), launch.quiet_seconds, "gpu-1").beat_if_due()
    some = NodeGroup(place, launch, StillQueued(), 0)
    assert some.exit_code() == 1
    error = some.failed(1).error()
    assert isinstance(error, SomeNotComeError) and not isinstance(error, NotComeError)
    assert error.found == "1 of them; pod b waits: ImagePullBackOff"


@dataclass
class Counted:
    """A launcher of nodes that never come; tells how often it was asked, and that it ended."""

    asked: int = 0
    ended: bool = False

    def start(self, place: Path) -> "Counted":
        return self

    def lost(self) -> dict[int, str]:
        self.asked += 1
        return {}

    def waiting(self) -> dict[int, str]:
        return {}

    def end(self) -> None:
        self.ended = True


def test_nodes_are_given_up_where_their_meeting_place_is_gone(tmp_path: Path) -> None:
    """As on a disk that is full: then the launcher alone can end them."""
    counted = Counted()
    launcher = SeveralNodes(TwoNodes(tmp_path / "r").settings, lambda logs: counted, tmp_path)
    with launcher.start(GroupShape(tmp_path, "cpu", 2, 1), tmp_path / "orders", tmp_path):
        (place,) = tmp_path.glob("nodes-*")
        shutil.rmtree(place)
    assert counted.ended


def test_what_cannot_be_read_is_no_word_of_a_node(tmp_path: Path) -> None:
    place = MeetingPlace(tmp_path)
    for path in (place.failure(0), tmp_path / "node-0000-ended.json"):
        path.mkdir()
    assert place.ended(0) is None
    assert read_failure(place.failure(0)) is None


def test_who_ends_nodes_does_not_wait_for_a_queue_that_is_slow(tmp_path: Path) -> None:
    place, launch, counted = MeetingPlace(tmp_path), a_launch(tmp_path), Counted()
    group = NodeGroup(place, launch, counted, 60)
    for number in (0, 1):
        Beats(place.node(number), launch.quiet_seconds, "gpu").beat_if_due()
    assert group.exit_code() is None and counted.asked == 1
    place.say_ended(0, Ended(host="gpu-1", code=0))
    write_failure(place.failure(1), ConsortiaError("a", expected="b", found="c", action="d"))
    began = time.monotonic()
    group.wait_for_end()
    assert time.monotonic() - began < 5, "a node that has said why it ends has ended"
    assert counted.asked == 1
    for before in (START_SECONDS, ASK_SECONDS + END_SECONDS):
        assert before + GIVE_UP_SECONDS < STOP_WAIT_SECONDS, "a stop says when all is over"


def test_a_check_and_an_agent_leave_each_other_alone(tmp_path: Path) -> None:
    counted, logs = Counted(), list[Path]()

    def launcher(directory: Path) -> Counted:
        logs.append(directory)
        return counted

    settings = TwoNodes(tmp_path / "r", check_seconds=1).settings
    nodes, shape = SeveralNodes(settings, launcher, tmp_path), GroupShape(tmp_path, "cpu", 2, 1)
    with pytest.raises(NotComeError):
        nodes.check(shape, (tmp_path,))
    checked = tmp_path / f"{CHECKED}1"
    checked.mkdir()
    with nodes.start(shape, tmp_path / "orders", tmp_path):
        assert checked.exists()
    assert logs[0].parent == logs[1] == tmp_path, "logs of a check go with its meeting place"
    os.utime(checked, (0, 0))
    with nodes.start(shape, tmp_path / "orders", tmp_path):
        assert not checked.exists()


def test_of_all_logs_one_that_is_not_seen_yet_is_the_last(tmp_path: Path) -> None:
    (tmp_path / "log-rank-1.txt").write_text("ValueError: the cause\n")
    logs = {rank: tmp_path / f"log-rank-{rank}.txt" for rank in (0, 1)}
    assert first_of({0: 1, 1: 1}, logs)[0] == 1
    unseen = first_of({0: 1}, logs)[1]
    assert "the log cannot be read: No such file" in str(unseen.error())


def test_all_ranks_go_on_from_where_the_first_one_says(tmp_path: Path) -> None:
    """Each rank is a process that sees a file system of its own."""
    from silo_agent.training.ranks.checkpoints import ResumePoint, mark_complete

    script = tmp_path / "rank.py"
    script.write_text(
        "import os, sys\nfrom pathlib import Path\nimport torch.distributed as dist\n"
        "from silo_agent.training.ranks.checkpoints import newest_complete\n"
        "from silo_agent.training.ranks.process_group import of_first_rank\n"
        "rank, below = int(os.fork() == 0), Path(sys.argv[1])\n"
        "store = dist.FileStore(str(below / 'store'), 2)\n"
        "dist.init_process_group('gloo', store=store, rank=rank, world_size=2)\n"
        "point = of_first_rank(lambda: newest_complete(below / str(rank), 'f'))\n"
        "(below / f'point-{rank}').write_text(str(point.step))\n"
        "sys.exit(rank == 0 and os.wait()[1])\n"
    )
    for rank, step in ((0, 8), (1, 4)):
        (tmp_path / str(rank)).mkdir()
        mark_complete(tmp_path / str(rank), ResumePoint(step, 1, 1.0, 1.0, 1.0, None, None), "f")
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, timeout=120)
    assert [(tmp_path / f"point-{rank}").read_text() for rank in (0, 1)] == ["8", "8"]


def test_an_address_of_one_link_alone_is_none_for_the_others() -> None:
    link, ipv6 = (socket.AF_INET6, "fe80::1%ib0"), (socket.AF_INET6, "fd00::1")
    assert first_address([link, ipv6], "ib0") == ipv6
    assert first_address([ipv6, (socket.AF_INET, "10.0.0.1")], "ib0")[1] == "10.0.0.1"
    with pytest.raises(SiloOperatorError, match="expected an address; found none, or of one link"):
        first_address([link], "ib0")


def test_nccl_gets_the_name_of_the_interface_and_no_beginning_of_names(tmp_path: Path) -> None:
    """Else eth1 would stand for eth10 as well."""
    of_nodes = variables_of(MeetingPlace(tmp_path), a_launch(tmp_path, interface="eth1"), 0)
    assert (of_nodes["NCCL_SOCKET_IFNAME"], of_nodes["GLOO_SOCKET_IFNAME"]) == ("=eth1", "eth1")


def test_a_launch_of_another_release_is_told_by_its_versions(tmp_path: Path) -> None:
    fields = a_launch(tmp_path, packages={"consortia": "9.0"}).model_dump(mode="json")
    (tmp_path / "launch.json").write_text(json.dumps({**fields, "something_new": 1}))
    assert node([str(tmp_path), "0"]) == FAULT
    failure = read_failure(MeetingPlace(tmp_path).failure(0))
    assert failure is not None and failure.expected == "consortia 9.0, as the agent"


def test_a_remote_shell_is_ended_with_what_it_started(tmp_path: Path) -> None:
    shell = tmp_path / "shell"
    shell.write_text("#!/bin/sh\nsleep 60 &\nwait\n")
    shell.chmod(0o700)
    started = Hosts((str(shell),), (Host("gpu-1", 1),), tmp_path).start(tmp_path)
    below = psutil.Process(started.shells[0].pid)
    while not (proxies := below.children()):
        time.sleep(0.02)
    started.end()
    # Killed, it is gone as soon as the system comes to it; it would sleep for a minute.
    psutil.wait_procs(proxies, timeout=10)
    assert not any(map(executes, proxies))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gpu-1 slots=2\n", "1 hosts"),
        ("gpu-1 slots=2\ngpu-1 slots=2\n", "a host that is named twice"),
        ("gpu-1 slots=2\ngpu-2 slots=4\n", "slots=4 of gpu-2"),
        ("gpu-1 slots=2\n-oProxyCommand=x slots=2\n", "'-oProxyCommand=x slots=2' in line 2"),
        ("gpu-1\ngpu-2\n", "'gpu-1' in line 1"),
    ],
)
def test_a_hostfile_is_refused_with_what_was_found(text: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "hostfile"
    path.write_text(text)
    with pytest.raises(SiloOperatorError) as raised:
        read_hostfile(path, 2, 2)
    assert raised.value.found == found
    assert "2 lines such as `gpu-1 slots=2`" in raised.value.expected


def test_the_first_rank_listens_on_the_named_interface_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from silo_agent.training.ranks.meeting import ADDRESS, store_of_nodes

    minute = timedelta(minutes=1)
    assert store_of_nodes(0, 2, minute) is None, "on one machine"
    monkeypatch.setenv(MEETING_VARIABLE, str(tmp_path))
    monkeypatch.setenv(INTERFACE_VARIABLE, LOOPBACK)
    monkeypatch.setenv(PORT_VARIABLE, "0")
    first, other = (store_of_nodes(rank, 2, minute) for rank in (0, 1))
    first.set("word", "said")
    assert other.get("word") == b"said"
    host, port = json.loads((tmp_path / ADDRESS).read_bytes())
    mine = psutil.Process().net_connections(kind="tcp")
    listening = {c.laddr.ip for c in mine if c.status == "LISTEN" and c.laddr.port == port}
    assert listening == {host} == {"127.0.0.1"}
    monkeypatch.setenv(PORT_VARIABLE, str(port))
    with pytest.raises(SiloOperatorError, match=r"expected to be free for the first rank; found A"):
        store_of_nodes(0, 2, minute)
    with pytest.raises(
        SiloOperatorError, match=r"interface ib7 .*: expected an address; found none"
    ):
        address_of("ib7", "gpu-1")


def test_a_hostfile_of_deepspeed_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hostfile"
    path.write_text("# two machines\ngpu-1 slots=2\n\nroot@10.0.0.7 slots=2 # the other\n")
    assert read_hostfile(path, 2, 2) == (Host("gpu-1", 2), Host("root@10.0.0.7", 2))
    with pytest.raises(SiloOperatorError, match="found No such file"):
        read_hostfile(tmp_path / "none", 2, 2)
