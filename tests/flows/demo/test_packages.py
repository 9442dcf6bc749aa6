"""Fetching a wheel: pinned by digest, once, and with an error that says what to do."""

from pathlib import Path

import pytest

from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import artifact_of_file
from flows.demo.packages import ALL_WHEELS, fetch_wheel
from tests.wheel_samples import build_wheel


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, with every index switched off."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return shelf


def test_a_wheel_is_fetched_once(shelf: Path, tmp_path: Path) -> None:
    wheel = build_wheel(shelf, "tiny_data", "1.0", {"tiny/data.txt": b"text"})
    digest = artifact_of_file(wheel).digest
    said: list[str] = []
    cached = fetch_wheel("tiny-data", "1.0", digest, tmp_path / "cache", said.append)
    assert artifact_of_file(cached).digest == digest
    assert any("tiny" in line for line in said)
    wheel.unlink()
    assert fetch_wheel("tiny-data", "1.0", digest, tmp_path / "cache") == cached
    assert list((tmp_path / "cache").iterdir()) == [cached]


def test_damaged_copy_is_fetched_again(shelf: Path, tmp_path: Path) -> None:
    digest = artifact_of_file(build_wheel(shelf, "tiny_data", "1.0", {})).digest
    cached = fetch_wheel("tiny-data", "1.0", digest, tmp_path / "cache")
    cached.write_bytes(b"damaged")
    assert fetch_wheel("tiny-data", "1.0", digest, tmp_path / "cache") == cached
    assert artifact_of_file(cached).digest == digest


def test_other_bytes_are_refused_and_not_kept(shelf: Path, tmp_path: Path) -> None:
    build_wheel(shelf, "tiny_data", "1.0", {"tiny/data.txt": b"other"})
    with pytest.raises(FederationOperatorError, match="tiny-data: expected SHA-256 0000"):
        fetch_wheel("tiny-data", "1.0", "0" * 64, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_offline_says_so(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(FederationOperatorError) as error:
        fetch_wheel("tiny-data", "1.0", "0" * 64, tmp_path / "cache")
    assert "No matching distribution" in error.value.found
    assert "check the network" in error.value.action
    assert list((tmp_path / "cache").iterdir()) == []


def test_cache_that_cannot_be_written(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FederationOperatorError, match="expected room in"):
        fetch_wheel("tiny-data", "1.0", "0" * 64, tmp_path / "file" / "cache")


def test_pins_are_exact() -> None:
    assert len({pin.sha256 for pin in ALL_WHEELS}) == 3
    assert all(len(pin.sha256) == 64 and pin.size > 10**6 for pin in ALL_WHEELS)
