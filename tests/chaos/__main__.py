"""`python -m tests.chaos`: every guard deleted once, a million mutated adapters, 300,000 records,
2,000 contracts.

Prints a table of the guards that nobody missed, and writes `.consortia/bench/chaos.json`. The exit
code says whether all was caught and nothing wrong came through.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.disk.durable_files import write_durably
from tests.chaos.redundant import REDUNDANT
from tests.chaos.rooms import FAR, NEAR, PASSED_OVER, ROOT, all_guards, guarded_files

ADAPTERS, RECORDS, CONTRACTS = 1_000_000, 300_000, 2_000
PROCESSES = 2
PART = 50_000
"""Cases that a process plays at a time."""

RESULTS = ROOT / ".consortia" / "bench" / "chaos.json"
FUZZERS: dict[str, str] = {
    "tensor_cases": "tests.chaos.adapters",
    "record_cases": "tests.chaos.records",
    "contract_cases": "tests.data_contracts.dataset.contract.test_parsed_tree",
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


Groups = list[tuple[str, ...]]


def delete_guards(only: str = "") -> Deletions:
    """Each guard by itself, and with its row of the table; first before the near tests, and what
    those do not miss before whole rounds."""
    singles: Groups = [(guard.name,) for guard in all_guards() if only in guard.name]
    rows = {guard: row for guard, row in REDUNDANT.items() if only in guard}
    groups = singles + [(guard, *row.others) for guard, row in rows.items()]
    caught: dict[tuple[str, ...], str] = {}
    failed: list[str] = []
    for tests in (NEAR, FAR):
        left = [
            group for group in groups if group not in caught and not _is_explained(group, caught)
        ]
        if not left:
            break
        found = _deleted(left, tests)
        failed += found["failed"]
        caught |= {tuple(o["off"]): o["caught_by"] for o in found["outcomes"] if o["caught_by"]}
    return sorted_out(groups, caught, failed)


def _is_explained(group: tuple[str, ...], caught: Mapping[tuple[str, ...], str]) -> bool:
    """Whether it is a single guard that was missed together with those of its row."""
    row = REDUNDANT.get(group[0])
    return len(group) == 1 and row is not None and (*group, *row.others) in caught


def _deleted(groups: Groups, tests: Iterable[str]) -> dict[str, Any]:
    """Runs pytest with `tests.chaos.deletion` in a process of its own."""
    with TemporaryDirectory() as directory:
        into, wanted = Path(directory) / "outcomes", Path(directory) / "groups"
        wanted.write_text(json.dumps(groups))
        ignored = [f"--ignore={path}" for path in PASSED_OVER]
        subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "tests.chaos.deletion", "-p"),
                *("no:xdist", "-m", "not campaign and not stack"),
                *(f"--guards-into={into}", f"--guards-groups={wanted}", *ignored, *tests),
            ],
            cwd=ROOT,
            check=False,
        )
        found: dict[str, Any] = json.loads(into.read_text())
    return found


def sorted_out(
    groups: Groups, caught: Mapping[tuple[str, ...], str], failed: Iterable[str]
) -> Deletions:
    """Redundant is what nobody misses, where the table says what does the same, and both together
    are missed; a row of the table whose guard is missed by itself is stale."""
    singles = [group[0] for group in groups if len(group) == 1]
    missed = {group[0] for group in caught if len(group) == 1}
    together = {group[0] for group in caught if len(group) > 1}
    alone = [guard for guard in singles if guard not in missed]
    rows = [group[0] for group in groups if len(group) > 1]
    return Deletions(
        caught=tuple(guard for guard in singles if guard in missed),
        redundant=tuple(guard for guard in alone if guard in together),
        unnoticed=tuple(guard for guard in alone if guard not in together),
        failed=tuple(failed),
        stale=tuple(guard for guard in rows if guard in missed),
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
            if not cases:
                continue
            part = min(PART, -(-cases // PROCESSES))
            parts = [min(part, cases - begun) for begun in range(0, cases, part)]
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
    # What a part of the guards came to is not to be taken for the whole.
    if not given.only:
        write_durably(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
        console.print(f"{RESULTS.relative_to(ROOT)}:", highlight=False)
    console.print_json(data=results)
    return 1 if found.unnoticed or found.failed or found.stale else 0


if __name__ == "__main__":
    sys.exit(main())
