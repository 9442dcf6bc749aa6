"""Truncated, corrupt and hostile Parquet and Arrow files end in an error or in unreadable rows."""

import random
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.dataset.sources import parquet_pages
from data_contracts.dataset.sources.data_source import DataSource
from data_contracts.dataset.sources.parquet_pages import PageRefusedError, page_sizes
from tests.data_contracts.dataset.sources.peak_memory import peak_while_reading
from tests.data_contracts.dataset.sources.source_samples import (
    CANARY,
    records,
    rows_of,
    unavailable,
    write_parquet,
)

PARQUET = DataSource(format="parquet", path="data.parquet")
FOLDER = DataSource(format="huggingface", path="data")
DAMAGES = 450
"""The footer of damage 349 ends the process when pyarrow's column metadata is touched."""

READ = """
import sys
from pathlib import Path
from data_contracts.dataset.examples import Example
from data_contracts.dataset.sources.data_source import DataSource, DataUnavailableError
from data_contracts.dataset.sources.reading import read_source
root = Path(sys.argv[1])
for folder in sorted(root.iterdir()):
    kind = "parquet" if (folder / "data.parquet").exists() else "huggingface"
    path = "data.parquet" if kind == "parquet" else "data"
    try:
        rows = sum(1 for _ in read_source(DataSource(format=kind, path=path), folder))
        print("rows", rows)
    except DataUnavailableError as error:
        print("refused", error)
"""


def read_all(root: Path) -> list[str]:
    """Read every set below `root` in a child, which a crash would end."""
    command = [sys.executable, "-c", READ, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    assert CANARY not in done.stdout + done.stderr
    return done.stdout.splitlines()


def damaged(data: bytes, number: int) -> bytes:
    """`data` with a few bytes changed, or cut short."""
    choice = random.Random(number)
    if number % 5 == 0:
        return data[: choice.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(choice.randint(1, 8)):
        changed[choice.randrange(len(changed))] = choice.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_damaged_parquet_never_crashes(tmp_path: Path, use_dictionary: bool) -> None:
    write_parquet(
        tmp_path / "good.parquet", records(40, consent=True), use_dictionary=use_dictionary
    )
    data = (tmp_path / "good.parquet").read_bytes()
    root = tmp_path / "sets"
    for number in range(DAMAGES):
        folder = root / f"{number:04}"
        folder.mkdir(parents=True)
        (folder / "data.parquet").write_bytes(damaged(data, number))
    lines = read_all(root)
    assert len(lines) == DAMAGES
    assert sum(line.startswith("refused") for line in lines) > DAMAGES / 5


def test_damaged_arrow_never_crashes(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(records(40, consent=True))
    table = table.set_column(4, "licence", pa.array(["MIT", "x"] * 20).dictionary_encode())
    datasets.Dataset(table).save_to_disk(tmp_path / "good")
    root = tmp_path / "sets"
    for number in range(DAMAGES):
        folder = root / f"{number:04}" / "data"
        folder.mkdir(parents=True)
        for path in (tmp_path / "good").iterdir():
            data = path.read_bytes()
            is_arrow = path.suffix == ".arrow"
            (folder / path.name).write_bytes(damaged(data, number) if is_arrow else data)
    lines = read_all(root)
    assert len(lines) == DAMAGES
    assert sum(line.startswith("refused") for line in lines) > DAMAGES / 5


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PARE" + b"x" * 50 + b"PARE", b"x" * 1000])
def test_files_that_are_something_else(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "data.parquet").write_bytes(data)
    with unavailable("not a Parquet file that is complete and not encrypted"):
        rows_of(PARQUET, tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "state.json").write_text('{"_data_files": [{"filename": "x.arrow"}]}')
    (tmp_path / "data" / "x.arrow").write_bytes(data)
    with unavailable("damaged, or in a form that is not supported"):
        rows_of(FOLDER, tmp_path)


def test_few_bytes_that_are_many_records(tmp_path: Path) -> None:
    """1 MiB of dictionary, and 200,000 rows that refer to it: 200 GB of text when expanded."""
    count = 200_000
    big = pa.DictionaryArray.from_arrays(
        pa.array([0] * count, pa.int32()), pa.array(["x" * 1_000_000])
    )
    texts = {name: pa.array([name] * count) for name in ("id", "subject", "prompt", "source")}
    folder = tmp_path / "sets" / "bomb"
    folder.mkdir(parents=True)
    path = folder / "data.parquet"
    pq.write_table(pa.table({**texts, "answer": big}), path, dictionary_pagesize_limit=2**30)
    assert path.stat().st_size < 2_000_000
    peak = peak_while_reading(PARQUET, folder, at_most=300)
    assert (peak.rows, peak.unreadable) == (300, 0)
    assert peak.bytes < 128 * 1024 * 1024


@pytest.mark.long
def test_a_delta_encoding_that_repeats_a_long_value(tmp_path: Path) -> None:
    rows = records(1200, answer="x" * 900_000)
    write_parquet(
        tmp_path / "data.parquet",
        rows,
        use_dictionary=False,
        column_encoding={"answer": "DELTA_BYTE_ARRAY"},
        data_page_size=2**26,
    )
    assert (tmp_path / "data.parquet").stat().st_size < 10_000_000
    peak = peak_while_reading(PARQUET, tmp_path, at_most=300)
    assert (peak.rows, peak.unreadable) == (300, 0)
    assert peak.bytes < 256 * 1024 * 1024


def test_a_page_that_expands_too_far(tmp_path: Path) -> None:
    answers = ["x" * (parquet_pages.MAX_PAGE_BYTES + 1)]
    table = pa.Table.from_pylist(records(1)).set_column(3, "answer", pa.array(answers))
    pq.write_table(table, tmp_path / "data.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "data.parquet").stat().st_size < 200_000
    with unavailable("column answer: a page that expands to more than"):
        rows_of(PARQUET, tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"\x15", b"\xff" * 40, b"\x1c" * 40, b"\x15\x00\x00", b"\x19"]
)
def test_page_headers_that_are_damaged(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "pages"
    path.write_bytes(data)
    with path.open("rb") as file, pytest.raises(PageRefusedError, match="page"):
        page_sizes(file, 0, 1000)


def test_a_truncated_set_says_at_which_row(tmp_path: Path) -> None:
    datasets.Dataset.from_list(records(2500)).save_to_disk(tmp_path / "data")
    (path,) = (tmp_path / "data").glob("*.arrow")
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(Exception, match="data set data, row 2001: expected"):
        rows_of(FOLDER, tmp_path)
