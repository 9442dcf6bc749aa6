"""Records by their number, in any order, without the file in memory."""

import json
import pickle
from pathlib import Path

import pytest

from data_contracts.dataset.forms.image_text import CaptionedPicture
from data_contracts.dataset.forms.record_index import RecordIndex
from data_contracts.errors import DataStewardError


def line(number: int) -> bytes:
    said = {
        "image": f"/data/{number}.png",
        "sha256": f"{number:064x}",
        "answer": f"\u2028é {number}",
    }
    return json.dumps(said, ensure_ascii=False).encode()


def test_any_record_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\n".join([b"", line(0), b"", b" \x0c", line(1), line(2) + b"\r", line(3)]))
    index = RecordIndex(path)
    assert len(index) == 4 and index.form.name == "image-text"
    assert pickle.loads(pickle.dumps(index)).record(3) == index.record(3)  # noqa: S301
    for number in (3, 0, 2, 1):
        expected = CaptionedPicture(
            Path(f"/data/{number}.png"), f"{number:064x}", f"\u2028é {number}"
        )
        assert index.record(number) == expected
    for beyond in (-1, 4):
        with pytest.raises(IndexError):
            index.record(beyond)


def test_what_is_no_record_is_said_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(line(0) + b"\n" + b'{"text": "SECRET"}\n')
    index = RecordIndex(path)
    with pytest.raises(DataStewardError, match="found text in record 2, and image-text before it"):
        index.record(1)
    path.write_bytes(b"\n \n")
    with pytest.raises(DataStewardError, match="an empty file"):
        RecordIndex(path)


def test_the_index_takes_eight_bytes_a_record(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes((line(7) + b"\n") * 20_000)
    index = RecordIndex(path)
    assert index.record(19_999).sha256.endswith("7")
    assert len(pickle.dumps(index)) < 20_000 * 8 + 1000
