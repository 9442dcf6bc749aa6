"""`make bench-privacy`: masked sums beside the plain average and Flower's SecAgg+, in one run.

16 silos with the adapters of `make bench-merge` (17 million parameters each), threshold 11, with
no, one and five silos that drop out after they shared their seeds out. Every system in a process of
its own, one after the other. What is compared is arithmetic: a silo's masking from its trained
adapter to what it sends, and the coordinator's unmasking from what was sent to the mean, with the
shares that rebuild the seeds; no network, no signatures, no training. Ours reads and writes files,
Flower's holds everything in memory; a silo's masking is measured of ours in both ways. Flower's
server has one thread, ours one a core, so all seconds are of CPU time. Beside it what encrypted
storage costs a merge. Writes, flat, `.consortia/bench/privacy.json`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from benchmarks.peers.environments import environment_python
from data_contracts.protocol.records.masking_terms import least_threshold

OUTPUT = Path(".consortia/bench/privacy.json")
ADAPTERS = Path(".consortia/bench/adapters")

Figures = dict[str, float]


def main() -> None:
    """Measure; `--quick` is 4 silos of which one drops out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    silos, dropped = (4, (1,)) if quick else (16, (1, 5))
    ADAPTERS.mkdir(parents=True, exist_ok=True)
    threshold = least_threshold(silos)
    options = ["--silos", str(silos), "--threshold", str(threshold), "--dropped"]
    options += [str(count) for count in dropped]
    ours = _run(
        [
            sys.executable,
            "-m",
            "benchmarks.privacy.masked_sums",
            *options,
            "--directory",
            str(ADAPTERS),
        ]
    )
    script = Path("benchmarks/peers/flower/secagg.py")
    flower = _run([str(environment_python("flower")), str(script), *options])
    stored = [sys.executable, "-m", "benchmarks.merge_clocks.encrypted"]
    stored += ["--directory", str(ADAPTERS), "--silos", str(silos), "--runs", "1" if quick else "3"]
    encrypted = _run(stored)
    figures = _figures(silos, dropped, ours, flower) | encrypted
    # What private training was measured to cost is in the same file.
    known = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    rounded = {name: round(value, 4) for name, value in figures.items()}
    OUTPUT.write_text(json.dumps(known | rounded, indent=1) + "\n")
    console = Console()
    console.print(machine("all"))
    title = f"{silos} silos, threshold {threshold}, 17 million parameters"
    _show(console, title, dropped, ours, flower)
    console.print(
        "encrypted in storage: a merge takes "
        f"{encrypted['encrypted_merge_ratio']:.2f} times as long, the arrival of an adapter "
        f"{encrypted['encrypted_arrival_ratio']:.2f} times"
    )
    console.print(f"written {OUTPUT}")


def _figures(silos: int, dropped: tuple[int, ...], ours: Figures, flower: Figures) -> Figures:
    figures = {
        "mask_seconds_per_silo": ours["mask_seconds"],
        "mask_arrays_seconds_per_silo": ours["mask_arrays_seconds"],
        "flower_mask_seconds_per_silo": flower["mask_seconds"],
        f"plain_average_seconds_{silos}": ours["plain_average_seconds"],
        f"plain_average_wall_seconds_{silos}": ours["plain_average_wall_seconds"],
        "bytes_per_silo": ours["bytes_per_silo"],
        "flower_bytes_per_silo": flower["bytes_per_silo"],
    }
    for count in (0, *dropped):
        name = f"{silos}_dropped_{count}" if count else f"{silos}"
        figures[f"unmask_seconds_{name}"] = ours[f"unmask_seconds_dropped_{count}"]
        figures[f"unmask_wall_seconds_{name}"] = ours[f"unmask_wall_seconds_dropped_{count}"]
        figures[f"flower_secagg_seconds_{name}"] = flower[f"unmask_seconds_dropped_{count}"]
    return figures


def _run(command: list[str]) -> Figures:
    """The JSON on the last line of what the command prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _show(
    console: Console,
    title: str,
    dropped: tuple[int, ...],
    ours: Figures,
    flower: Figures,
) -> None:
    table = Table(title=title, title_justify="left")
    for column in ("seconds of one core", "ours", "Flower SecAgg+"):
        table.add_column(column, justify="left" if column.startswith("seconds") else "right")
    plain = ours["plain_average_seconds"]
    peer = f"{flower['mask_seconds']:.2f}"
    table.add_row("masking, a silo, in memory", f"{ours['mask_arrays_seconds']:.2f}", peer)
    table.add_row("masking, a silo, from file to file", f"{ours['mask_seconds']:.2f}", "")
    for count in (0, *dropped):
        own, peer = (f[f"unmask_seconds_dropped_{count}"] for f in (ours, flower))
        cells = (f"{own:.2f} ({own / plain:.1f} x plain)", f"{peer:.2f}")
        table.add_row(f"unmasking, {count} dropped out", *cells)
    table.add_row("plain average of the files", f"{plain:.2f}", "")
    sent = (f"{figures['bytes_per_silo'] / 1e6:.1f} MB" for figures in (ours, flower))
    table.add_row("what a silo sends", *sent)
    console.print(table)


if __name__ == "__main__":
    main()
