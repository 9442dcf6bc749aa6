"""Memory that reading takes, measured in a child process of its own."""

import json
import subprocess
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from data_contracts.dataset.examples import UnreadableRow
from data_contracts.dataset.sources.data_source import DataSource
from data_contracts.dataset.sources.reading import read_source


@dataclass(frozen=True)
class Peak:
    """`bytes` beyond those of the first row; mapped files do not count, as they can be dropped."""

    bytes: int
    rows: int
    unreadable: int


def peak_while_reading(
    source: DataSource, root: Path, connection: str | None = None, *, at_most: int | None = None
) -> Peak:
    """Read a source in a child, at most so many rows."""
    arguments = json.dumps([source.model_dump(mode="json"), str(root), connection, at_most])
    command = [sys.executable, "-m", __name__, arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return Peak(*json.loads(done.stdout))


def _measured(source: DataSource, root: Path, connection: str | None, at_most: int | None) -> Peak:
    rows = unreadable = start = highest = 0
    for row in islice(read_source(source, root, connection), at_most):
        rows += 1
        unreadable += isinstance(row, UnreadableRow)
        if rows % 50 == 1:
            highest = max(highest, _anonymous_bytes())
            start = start or highest
    return Peak(highest - start, rows, unreadable)


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon in /proc/self/status")


if __name__ == "__main__":
    described, root_name, url, limit = json.loads(sys.argv[1])
    peak = _measured(
        DataSource.model_validate_json(json.dumps(described)), Path(root_name), url, limit
    )
    sys.stdout.write(json.dumps([peak.bytes, peak.rows, peak.unreadable]))
