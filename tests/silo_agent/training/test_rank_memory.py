"""What ranks hold is seen from outside, in real processes that only look like ranks."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from silo_agent.training.processes.rank_memory import RankMemory, rank_memory

RANK = ("-m", "silo_agent.training.ranks.child")
TORCHRUN = ("-m", "torch.distributed.run", "--no-python", sys.executable, *RANK)
FORKED = ("-m", "silo_agent.training.ranks.forked", "1")
FORK = "import os, time; pid = os.fork(); pid and os.write(1, b'%d\\n' % pid); time.sleep(60)"
BALLAST = 60_000_000
HOLD = (
    "import sys; held = bytearray(int(sys.argv[1])); held[::4096] = b'x' * len(held[::4096]); "
    "print(flush=True); sys.stdin.read()"
)


@contextmanager
def process(size: int, words: tuple[str, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """A process below this one that holds so many bytes, with these words in its command."""
    command = [sys.executable, "-c", HOLD, str(size), *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"\n"
        yield started
        started.kill()


def test_each_rank_counts_and_what_starts_them_does_not() -> None:
    me = psutil.Process().pid
    assert rank_memory(me) == ()
    with process(0, TORCHRUN), process(0, ("-m", "http.server")), process(0, ()):
        assert rank_memory(me) == ()
        with process(BALLAST, RANK) as large, process(0, RANK) as small:
            sizes = sorted(rank_memory(me))
            assert len(sizes) == 2
            assert BALLAST / 2 < sizes[1] - sizes[0] < BALLAST * 1.5
            assert RankMemory(me).largest() == max(rank_memory(me))
            assert rank_memory(small.pid) == (sizes[0],), "also one that works alone"
            assert rank_memory(large.pid) == (sizes[1],)


def test_ranks_that_are_gone_are_none() -> None:
    me = psutil.Process().pid
    memory = RankMemory(me)
    assert memory.largest() is None, "before there is one"
    with process(0, RANK) as rank:
        assert (memory.largest() or 0) > 0
        gone = rank.pid
    assert memory.largest() is None
    assert rank_memory(gone) == ()


def test_what_ranks_are_forked_from_is_none_although_it_has_their_command() -> None:
    command = [sys.executable, "-c", FORK, *FORKED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        forked = int(launcher.stdout.readline())
        assert len(rank_memory(launcher.pid)) == 1
        assert rank_memory(forked) == rank_memory(launcher.pid)
        psutil.Process(forked).kill()
        launcher.kill()
