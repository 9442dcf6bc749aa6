"""The gate for a masked file: its size and header, and nothing of its content."""

from pathlib import Path

import numpy as np
import pytest

from data_contracts.errors import UntrustedInputError
from data_contracts.masking.masked_file import (
    HEADER_BYTES,
    masked_bytes,
    masked_header,
    open_masked,
)
from tests.data_contracts.masking.mask_samples import BINDING, OTHER_BINDING

SILO, ENTRIES = "silo-01", 1000


def written(folder: Path, raw: bytes | None = None) -> Path:
    path = folder / "masked"
    entries = np.arange(ENTRIES, dtype="<u4").tobytes()
    path.write_bytes(masked_header(BINDING, SILO, ENTRIES) + entries if raw is None else raw)
    return path


def test_any_part_of_a_file_is_read(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert path.stat().st_size == masked_bytes(ENTRIES) == HEADER_BYTES + 4 * ENTRIES
    file = open_masked(path, BINDING, SILO, ENTRIES)
    for first, count in ((0, ENTRIES), (7, 3), (ENTRIES - 1, 1)):
        out = np.empty(count, dtype="<u4")
        file.read_into(out, first)
        assert np.array_equal(out, np.arange(first, first + count))


@pytest.mark.parametrize("size", [0, 1, HEADER_BYTES, masked_bytes(ENTRIES) - 1])
def test_a_file_of_another_size_is_refused_unread(tmp_path: Path, size: int) -> None:
    whole = written(tmp_path).read_bytes()
    for raw in (whole[:size], whole + b"\0" * (size + 1)):
        with pytest.raises(UntrustedInputError, match=f"masked file of {SILO}") as told:
            open_masked(written(tmp_path, raw), BINDING, SILO, ENTRIES)
        assert told.value.rule == "masking.wrong_size"


def test_every_byte_of_the_header_counts(tmp_path: Path) -> None:
    whole = written(tmp_path).read_bytes()
    for at in range(HEADER_BYTES):
        raw = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        with pytest.raises(UntrustedInputError) as told:
            open_masked(written(tmp_path, raw), BINDING, SILO, ENTRIES)
        assert told.value.rule == "masking.wrong_header"


def test_a_file_of_another_silo_or_attempt_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    for binding, silo in ((OTHER_BINDING, SILO), (BINDING, "silo-02")):
        with pytest.raises(UntrustedInputError) as told:
            open_masked(path, binding, silo, ENTRIES)
        assert told.value.rule == "masking.wrong_header"
    with pytest.raises(UntrustedInputError) as told:
        open_masked(path, BINDING, SILO, ENTRIES + 1)
    assert told.value.rule == "masking.wrong_size"


def test_a_file_that_becomes_shorter_is_said(tmp_path: Path) -> None:
    path = written(tmp_path)
    file = open_masked(path, BINDING, SILO, ENTRIES)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UntrustedInputError) as told:
        file.read_into(np.empty(10, dtype="<u4"), ENTRIES - 10)
    assert told.value.rule == "masking.truncated"
