"""`make bench-merge`: our merge next to Flower and NVIDIA FLARE on the same adapters, in one run.

The adapters have the shape of a rank-16 LoRA on 32 layers of 4096 x 4096 (4 modules a layer, 256
tensors, 17 million parameters); their values are random, seeded and the same for all. Three clocks:
(a) decode and merge, (b) from storage, (c) a round without training; see the modules that run them.
Besides them, what encrypted adapters cost, and what a poll asks of storage at 10, 50 and 200 silos
and at rounds 2 and 100.
Every measurement runs in a process of its own, one after the other, and is a median; peak memory is
that of the aggregating process. Random adapters have a flat spectrum, the hardest case for the
default rule; trained ones are quicker. Writes `.consortia/bench/merge.json`, flat.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from aggregator.settings.merge import MergeSection
from benchmarks.peers.environments import environment_python

OUTPUT = Path(".consortia/bench/merge.json")
ADAPTERS = Path(".consortia/bench/adapters")
PEERS = ("flower", "nvflare")
SILOS = (4, 16, 64)
ROUND_SILOS = 16
ROUND_REQUESTS_SILOS = 3
REQUESTS = ((10, 1), (3, 2), (50, 1), (200, 1), (3, 100))
"""Silos and round: how requests grow with the one and do not with the other."""

DEFAULT_COMPRESSION = MergeSection().compression

Figures = dict[str, float]


def main() -> None:
    """Run every clock; `--quick` is 4 silos with one run each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    ADAPTERS.mkdir(parents=True, exist_ok=True)
    console = Console()
    cores = len(os.sched_getaffinity(0))
    python = platform.python_version()
    console.print(f"{platform.machine()}, {platform.system()}, {cores} cores, Python {python}")
    sizes, runs = ((4,), 1) if quick else (SILOS, 3)
    silos = sizes[-1] if quick else ROUND_SILOS
    clocks = [partial(decode_and_merge, console, size, runs) for size in sizes]
    clocks += [partial(clock, console, silos, runs) for clock in (from_storage, rounds)]
    clocks.append(partial(_ours, "best_error", ["--directory", str(ADAPTERS)]))
    clocks.append(partial(compression, console, runs))
    clocks.append(partial(encryption, console, silos, runs))
    clocks.append(partial(requests, console, REQUESTS[:2] if quick else REQUESTS))
    figures: Figures = {}
    for clock in clocks:
        # Written after each, so that what was measured is not lost with what fails later.
        figures |= clock()
        text = json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=1)
        OUTPUT.write_text(text + "\n")
    console.print(f"written {OUTPUT}")


def decode_and_merge(console: Console, silos: int, runs: int) -> Figures:
    """Clock (a) for one number of silos."""
    base = ["--directory", str(ADAPTERS), "--silos", str(silos), "--runs", str(runs)]
    rows = {
        "reading alone": _ours("decode_and_merge", [*base, "--rule", "read"]),
        "plain average": _ours("decode_and_merge", [*base, "--rule", "average", "--unmeasured"]),
        "plain average and its error": _ours("decode_and_merge", [*base, "--rule", "average"]),
        "stack_truncate and its error": _ours(
            "decode_and_merge", [*base, "--rule", "stack_truncate"]
        ),
    }
    options = ["--silos", str(silos), "--runs", str(runs)]
    rows |= {peer: _peer(peer, "decode_and_merge", options) for peer in PEERS}
    _show(console, f"(a) decode and merge, {silos} silos", rows)
    figures = {
        f"read_seconds_{silos}": rows["reading alone"]["seconds"],
        f"merge_seconds_{silos}": rows["plain average"]["seconds"],
        f"merge_measured_seconds_{silos}": rows["plain average and its error"]["seconds"],
        f"default_merge_seconds_{silos}": rows["stack_truncate and its error"]["seconds"],
        f"peak_mb_{silos}": max(row.get("peak_mb", 0) for row in list(rows.values())[:4]),
    }
    for peer in PEERS:
        figures[f"{peer}_merge_seconds_{silos}"] = rows[peer]["seconds"]
        figures[f"{peer}_peak_mb_{silos}"] = rows[peer]["peak_mb"]
    return figures


def from_storage(console: Console, silos: int, runs: int) -> Figures:
    """Clock (b): the floor, the plain average and the default."""
    arguments = ["--directory", str(ADAPTERS), "--silos", str(silos), "--runs", str(runs)]
    found = _ours("from_storage", arguments)
    _show(
        console, f"(b) from storage, {silos} silos", {k: {"seconds": v} for k, v in found.items()}
    )
    return {f"{what}_seconds_{silos}": seconds for what, seconds in found.items()}


def rounds(console: Console, silos: int, runs: int) -> Figures:
    """Clock (c): every system with its own transport; Flower's knows no quantisation."""
    arguments = ["--directory", str(ADAPTERS), "--silos", str(silos), "--runs", str(runs)]
    rows = {
        "ours, float32": _ours("round", [*arguments, "--compression", "none"]),
        f"ours, {DEFAULT_COMPRESSION} (default)": _ours(
            "round", [*arguments, "--compression", DEFAULT_COMPRESSION]
        ),
    }
    of_peers = ["--silos", str(silos), "--runs", str(runs)]
    rows |= {peer: _peer(peer, "round", of_peers) for peer in PEERS}
    rows["nvflare, float16"] = _peer("nvflare", "round", [*of_peers, "--quantised"])
    _show(console, f"(c) round without training, {silos} silos", rows)
    whole, default = (row["seconds"] for row in list(rows.values())[:2])
    figures = {
        f"round_seconds_{silos}": whole,
        f"round_default_seconds_{silos}": default,
        f"{DEFAULT_COMPRESSION}_round_seconds_{silos}": default,
        f"nvflare_float16_round_seconds_{silos}": rows["nvflare, float16"]["seconds"],
    }
    return figures | {f"{peer}_round_seconds_{silos}": rows[peer]["seconds"] for peer in PEERS}


def compression(console: Console, runs: int) -> Figures:
    """Compressing one silo's adapter, its gate, and decoding it."""
    found = _ours("compression", ["--directory", str(ADAPTERS), "--runs", str(runs)])
    names = ("first_compress", "compress", "gate", "decode")
    rows = {n: {k: found[f"{n}_{k}"] for k in ("seconds", "mb_per_s")} for n in names}
    _show(console, "int8, MB of float32 per second of a core", rows)
    return found


def encryption(console: Console, silos: int, runs: int) -> Figures:
    """What encrypted adapters cost, as ratios of CPU time."""
    arguments = ["--directory", str(ADAPTERS), "--silos", str(silos), "--runs", str(runs)]
    found = _ours("encrypted", arguments)
    for what, ratio in found.items():
        console.print(f"{what}, {silos} silos: {ratio:.2f}")
    return found


def requests(console: Console, places: Sequence[tuple[int, int]]) -> Figures:
    """What a look of the coordinator and a poll of a silo ask of storage."""
    table = Table(title="requests to storage", title_justify="left")
    for column in ("silos", "round", "one look of the coordinator", "one poll of a silo"):
        table.add_column(column, justify="right")
    figures: Figures = {}
    for silos, round_number in places:
        arguments = ["--silos", str(silos), "--round", str(round_number)]
        found = _ours("requests", arguments)
        cells = (silos, round_number, int(found["coordinator"]), int(found["silo"]))
        table.add_row(*map(str, cells))
        name = f"round_{round_number}" if silos == ROUND_REQUESTS_SILOS else f"{silos}"
        figures[f"requests_per_poll_{name}"] = found["coordinator"]
        figures[f"silo_requests_per_poll_{name}"] = found["silo"]
    console.print(table)
    return figures


def _ours(clock: str, arguments: list[str]) -> Figures:
    return _run([sys.executable, "-m", f"benchmarks.merge_clocks.{clock}", *arguments])


def _peer(peer: str, clock: str, arguments: list[str]) -> Figures:
    script = Path("benchmarks/peers") / peer / f"{clock}.py"
    return _run([str(environment_python(peer)), str(script), *arguments])


def _run(command: list[str]) -> Figures:
    """The JSON on the last line of what the command prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _show(console: Console, title: str, rows: dict[str, Figures]) -> None:
    table = Table(title=title, title_justify="left")
    columns = ("seconds", "mb_per_s", "peak_mb")
    for name in ("", "seconds", "MB/s", "peak MB"):
        table.add_column(name, justify="left" if not name else "right")
    for name, row in rows.items():
        cells = (f"{row[c]:.2f}" if c in row else "" for c in columns)
        table.add_row(name, *cells)
    console.print(table)


if __name__ == "__main__":
    main()
