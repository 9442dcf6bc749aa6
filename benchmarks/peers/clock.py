"""Clock (a): seconds and peak memory from wire messages in memory to the merged adapter.

Both peers use this file, so both are measured the same way. Adapters are encoded anew before every
pass, which is not timed; a pass may drop each message as soon as the peer's own code is done with
it. The first pass measures memory on a trimmed heap and warms everything up, the others time.
Peak memory is the kernel's high-water mark, reset just before the merge begins (Linux only).
"""

import argparse
import ctypes
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from adapters import Adapter, ExpectedMean, adapter_megabytes, silo_adapter

Wire = TypeVar("Wire")
Merged = TypeVar("Merged")
PROC = Path("/proc")
RESET_PEAK = "5"
"""Written to clear_refs, it sets VmHWM back to VmRSS (man 5 proc_pid_clear_refs)."""


@dataclass(frozen=True)
class Peer(Generic[Wire, Merged]):
    """How one system encodes an adapter, merges a list of wire messages, and shows the result."""

    encode: Callable[[int, Adapter], Wire]
    merge: Callable[[list[Wire]], Merged]
    arrays: Callable[[Merged], Adapter]


@dataclass(frozen=True)
class Pass:
    """`working_mb`: how far resident memory rose above what was held when the merge began."""

    seconds: float
    peak_mb: float
    working_mb: float


def run_merge_clock(*ways: Peer[Wire, Merged]) -> None:
    """Read --silos and --runs, measure, check each result and print one line of JSON.

    Where a system has several ways to do the same, the one with the smallest median counts.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--silos", type=int, required=True)
    parser.add_argument("--runs", type=int, default=3)
    options, _ = parser.parse_known_args()
    memory = _one_pass(ways[0], options.silos, trim=True)
    seconds = min(
        statistics.median(
            _one_pass(way, options.silos, trim=False).seconds for _ in range(options.runs)
        )
        for way in ways
    )
    figures = {
        "seconds": seconds,
        "mb_per_s": options.silos * adapter_megabytes() / seconds,
        "peak_mb": memory.peak_mb,
        "working_mb": memory.working_mb,
    }
    sys.stdout.write(json.dumps({key: round(value, 3) for key, value in figures.items()}) + "\n")


def status_mb(field: str, process: str = "self") -> float:
    """VmRSS or VmHWM of a process in 10^6 bytes."""
    for line in (PROC / process / "status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc/{process}/status has no {field}")


def reset_peak(trim: bool) -> None:
    """Set this process's high-water mark to what it holds now, after trimming if asked."""
    gc.collect()
    if trim:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    (PROC / "self" / "clear_refs").write_text(RESET_PEAK)


def _one_pass(peer: Peer[Wire, Merged], silos: int, trim: bool) -> Pass:
    expected = ExpectedMean()
    messages: list[Wire] = []
    for silo in range(silos):
        adapter = silo_adapter(silo)
        expected.add(silo, adapter)
        messages.append(peer.encode(silo, adapter))
        del adapter
    reset_peak(trim)
    before = status_mb("VmRSS")
    began = time.perf_counter()
    merged = peer.merge(messages)
    seconds = time.perf_counter() - began
    peak = status_mb("VmHWM")
    expected.check(peer.arrays(merged))
    return Pass(seconds, peak, max(0.0, peak - before))
