"""A folder for years: thousands of small files, each written to last."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.simulator.fixtures import tiny_model as tiny_model
from tests.simulator.year_check import Year

IN_MEMORY = Path("/dev/shm")


@pytest.fixture
def year_folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where the machine has such a place, so that a disk's syncs are not waited for."""
    if not IN_MEMORY.is_dir():
        yield tmp_path
        return
    folder = Path(mkdtemp(prefix="consortia-year-", dir=IN_MEMORY))
    yield folder
    shutil.rmtree(folder)


def make_year(folder: Path, model: Path) -> Year:
    """A year that has not begun."""
    return Year(7, folder, model)
