"""`python -m tests.chaos`: every guard deleted once, a million mutated adapters, 300,000 records.

Prints a table of the guards that nobody missed, and writes `.consortia/bench/chaos.json`. The exit
code says whether all was caught and nothing wrong came through.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.disk.durable_files import write_durably
from tests.chaos.redundant import REDUNDANT
from tests.chaos.rooms import PASSED_OVER, ROOT, TESTS, guarded_files

ADAPTERS, RECORDS, CONTRACTS = 1_000_000, 300_000, 0
PROCESSES = 2
PART = 50_000
"""Cases that a process plays at a time."""

RESULTS = ROOT / ".consortia" / "bench" / "chaos.json"
FUZZERS: dict[str, str] = {
    "tensor_cases": "tests.chaos.adapters",
    "record_cases": "tests.chaos.records",
    "contract_cases": "tests.chaos.contracts",
}
"""Modules with `run(cases, seed)`, which plays them and raises for what is wrong."""


@dataclass(frozen=True)
class Deletions:
    """What became of every guard: caught, redundant, or missed by nobody."""

    caught: tuple[str, ...]
    redundant: tuple[str, ...]
    unnoticed: tuple[str, ...]
    failed: tuple[str, ...]
    stale: tuple[str, ...]

    @property
    def deleted(self) -> int:
        """All of them."""
        return len(self.caught) + len(self.redundant) + len(self.unnoticed)


def delete_guards(only: str = "") -> Deletions:
    """Runs pytest with `tests.chaos.deletion` in a process of its own."""
    with TemporaryDirectory() as directory:
        into, pairs = Path(directory) / "outcomes", Path(directory) / "pairs"
        groups = {guard: (guard, *entry.others) for guard, entry in REDUNDANT.items()}
        pairs.write_text(json.dumps([group for name, group in groups.items() if only in name]))
        ignored = [f"--ignore={path}" for path in PASSED_OVER]
        subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "tests.chaos.deletion", "-p"),
                *("no:xdist", "-m", "not campaign and not stack", "--timeout=60"),
                *(f"--guards-into={into}", f"--guards-pairs={pairs}", f"--guards-only={only}"),
                *(*ignored, *TESTS),
            ],
            cwd=ROOT,
            check=False,
        )
        found = json.loads(into.read_text())
    return sorted_out(found, only)


def sorted_out(found: dict[str, Any], only: str = "") -> Deletions:
    """Redundant is what nobody misses, where the table says what does the same, and both together
    are missed; a row of the table that is not needed, or not there any more, is stale."""
    outcomes = {tuple(o["off"]): o["caught_by"] for o in found["outcomes"]}
    singles = {off[0]: by for off, by in outcomes.items() if len(off) == 1}
    together = {off[0]: by for off, by in outcomes.items() if len(off) > 1}
    alone = [guard for guard, by in singles.items() if by is None]
    redundant = [guard for guard in alone if together.get(guard) is not None]
    rows = [guard for guard in REDUNDANT if only in guard]
    named = {other for guard in rows for other in REDUNDANT[guard].others}
    return Deletions(
        caught=tuple(guard for guard, by in singles.items() if by is not None),
        redundant=tuple(redundant),
        unnoticed=tuple(guard for guard in alone if guard not in redundant),
        failed=tuple(found["failed"]),
        stale=tuple(
            sorted((set(rows) - set(alone)) | (named - set(singles) if not only else set()))
        ),
    )


def play(fuzzer: str, cases: int, seed: int) -> tuple[int, dict[str, int]]:
    """Cases that were let through, and those that were refused, by rule."""
    counts = import_module(fuzzer).run(cases, seed)
    if isinstance(counts, int):
        return 0, {"refused": counts}
    return counts.accepted, counts.refused


def fuzzed(wanted: dict[str, int], say: Callable[[str], None]) -> dict[str, int]:
    """Plays the cases of every fuzzer that there is, in parts with seeds of their own."""
    played = dict.fromkeys(wanted, 0)
    with ProcessPoolExecutor(PROCESSES) as pool:
        for name, cases in wanted.items():
            if not cases or find_spec(FUZZERS[name]) is None:
                continue
            parts = [min(PART, cases - begun) for begun in range(0, cases, PART)]
            fuzzer, accepted, refused = FUZZERS[name], 0, Counter[str]()
            for let_through, rules in pool.map(
                play, [fuzzer] * len(parts), parts, range(len(parts))
            ):
                accepted += let_through
                refused.update(rules)
            played[name] = accepted + refused.total()
            by_rule = ", ".join(f"{rule} {count:,}" for rule, count in refused.most_common())
            say(f"{name}: {played[name]:,} played, {accepted:,} let through rightly; {by_rule}")
    return played


def table_of(found: Deletions) -> Table:
    """A line for each room."""
    rooms = guarded_files()
    table = Table(title="Guards deleted one at a time", title_justify="left")
    for heading in ("room", "deleted", "caught", "redundant", "unnoticed"):
        table.add_column(heading, justify="left" if heading == "room" else "right")
    parts = [_by_room(rooms, part) for part in (found.caught, found.redundant, found.unnoticed)]
    for room in dict.fromkeys(rooms.values()):
        numbers = [part[room] for part in parts]
        table.add_row(room, *(str(number) for number in (sum(numbers), *numbers)))
    totals = [part.total() for part in parts]
    table.add_row("all", *(str(number) for number in (sum(totals), *totals)))
    return table


def _by_room(rooms: dict[str, str], guards: Iterable[str]) -> Counter[str]:
    return Counter(rooms[guard.partition("::")[0]] for guard in guards)


def main() -> int:
    """Runs the campaigns; see the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--only", default="", help="only guards with this text in their name")
    parser.add_argument("--adapters", type=int, default=ADAPTERS)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--contracts", type=int, default=CONTRACTS)
    given = parser.parse_args()
    began, console = time.monotonic(), Console()
    found = delete_guards(given.only)
    console.print(table_of(found))
    for title, names in (
        ("nobody noticed that this was deleted", found.unnoticed),
        ("fails with every guard in place", found.failed),
        ("not needed in tests/chaos/redundant.py, or not there any more", found.stale),
    ):
        for name in names:
            console.print(f"{title}: {name}", markup=False, highlight=False)
    wanted = {
        "tensor_cases": given.adapters,
        "record_cases": given.records,
        "contract_cases": given.contracts,
    }
    played = fuzzed(wanted, lambda line: console.print(line, markup=False, highlight=False))
    results = {
        "guards_deleted": found.deleted,
        "guards_caught": len(found.caught),
        "guards_redundant": len(found.redundant),
        **played,
        "seconds": round(time.monotonic() - began),
    }
    write_durably(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    console.print(f"{RESULTS.relative_to(ROOT)}: {json.dumps(results)}", highlight=False)
    return 1 if found.unnoticed or found.failed or found.stale else 0


if __name__ == "__main__":
    sys.exit(main())
