"""Event files hold what TensorBoard reads: by the format's own rules, and by its own reader."""

import errno
import stat
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from silo_agent.metrics import tensorboard_log
from silo_agent.metrics.tensorboard_log import FILE_VERSION, TensorBoardLog
from tests.full_disk import files_of_at_most
from tests.silo_agent.metrics.moments import LOADING, MOMENT, moment

FIRST = Path("run-1") / "round-0003-attempt-2"


def records(path: Path) -> Iterator[bytes]:
    """The data of each TFRecord, whose two checksums are right."""
    rest = path.read_bytes()
    while rest:
        (length,) = struct.unpack("<Q", rest[:8])
        data = rest[12 : 12 + length]
        assert rest[8:12] == masked(rest[:8])
        assert rest[12 + length : 16 + length] == masked(data)
        rest = rest[16 + length :]
        yield data


def masked(data: bytes) -> bytes:
    """CRC-32C bit by bit, from its polynomial alone, then TFRecord's mask."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 * (crc & 1))
    crc ^= 0xFFFFFFFF
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)


def test_checksums_are_those_of_the_standard() -> None:
    """RFC 3720, B.4: of 32 bytes of zeros, and of 32 of ones."""
    for data, crc in ((bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)):
        rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
        expected = struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)
        assert tensorboard_log._checksum(data) == masked(data) == expected


def written(folder: Path, *moments: object) -> list[Path]:
    log = TensorBoardLog(folder)
    log.write(moments)  # type: ignore[arg-type]
    log.close()
    return sorted(folder.rglob("events.out.tfevents.*"))


def test_a_file_begins_with_its_version_and_has_a_record_for_each_step(tmp_path: Path) -> None:
    (path,) = written(tmp_path / "boards", moment(1, 2.5), moment(300, 2.25))
    assert path.parent == tmp_path / "boards" / FIRST
    version, first, second = records(path)
    assert version[9:] == b"\x1a" + bytes([len(FILE_VERSION)]) + FILE_VERSION
    assert first[:9] == b"\x09" + struct.pack("<d", MOMENT.at.timestamp())
    assert (first[9:11], second[9:12]) == (b"\x10\x01", b"\x10\xac\x02")
    assert b"training/loss\x15" + struct.pack("<f", 2.5) in first
    assert b"training/loss\x15" + struct.pack("<f", 2.25) in second


def test_a_step_takes_few_bytes(tmp_path: Path) -> None:
    (path,) = written(tmp_path, *(moment(step, 2.5) for step in range(1, 1001)))
    assert 100_000 < path.stat().st_size < 200_000


def test_what_is_made_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "boards"
    written(folder, MOMENT)
    for made in (folder, folder / "run-1", folder / FIRST):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_each_attempt_and_each_start_has_a_file_of_its_own(tmp_path: Path) -> None:
    written(tmp_path, MOMENT, replace(MOMENT, attempt=3), replace(MOMENT, run="run-2"))
    found = written(tmp_path, replace(MOMENT, step=2))
    assert [path.parent.relative_to(tmp_path).as_posix() for path in found] == [
        *["run-1/round-0003-attempt-2"] * 2,
        "run-1/round-0003-attempt-3",
        "run-2/round-0003-attempt-2",
    ]


@pytest.mark.parametrize("room", [20, 60])
def test_after_half_a_record_the_next_one_begins_a_file(tmp_path: Path, room: int) -> None:
    log = TensorBoardLog(tmp_path)
    with files_of_at_most(room), pytest.raises(OSError) as caught:
        log.write([MOMENT])
    assert caught.value.errno == errno.ENOSPC
    log.write([MOMENT])
    log.close()
    halved, again = sorted((tmp_path / FIRST).iterdir())
    assert halved.stat().st_size == room
    assert len(list(records(again))) == 2
    with pytest.raises((AssertionError, struct.error)):
        list(records(halved))


def test_a_folder_that_cannot_be_made_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "boards").write_text("a file")
    with pytest.raises(OSError):
        TensorBoardLog(tmp_path / "boards").write([MOMENT])


def test_tensorboard_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="consortia[tensorboard] is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    written(tmp_path, LOADING, moment(1, 2.5), moment(2, 2.25), moment(1, 9.0, phase="evaluating"))
    seen = EventAccumulator(str(tmp_path / FIRST))
    seen.Reload()
    found = {tag: [(e.step, e.value) for e in seen.Scalars(tag)] for tag in seen.Tags()["scalars"]}
    assert found["training/loss"] == [(1, 2.5), (2, 2.25)]
    assert found["heldout/loss"] == [(1, 9.0)]
    assert found["training/memory_bytes"] == [(1, 1.9e9), (2, 1.9e9)]
    assert seen.Scalars("training/loss")[0].wall_time == MOMENT.at.timestamp()
