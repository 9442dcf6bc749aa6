"""Counting and removing own files, and never through a link."""

import os
from pathlib import Path

from infra.disk.own_files import (
    DiskCounter,
    DiskUsage,
    leads_through_no_link,
    leftovers,
    own_entries,
    remove_all,
    usage_of_all,
)


def written(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def test_a_file_of_two_names_counts_once(tmp_path: Path) -> None:
    one = written(tmp_path / "a" / "one", 10)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two").hardlink_to(one)
    assert usage_of_all([tmp_path / "a", tmp_path / "b"]) == DiskUsage(1, 10)
    counter = DiskCounter()
    assert counter.usage(tmp_path / "b") == DiskUsage(1, 10)
    assert counter.usage(tmp_path / "a") == DiskUsage()


def test_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert usage_of_all([tmp_path / "absent"]) == DiskUsage()
    assert own_entries(tmp_path / "absent") == []
    assert remove_all([tmp_path / "absent"]).refused == ()


def test_links_are_neither_counted_through_nor_removed_through(tmp_path: Path) -> None:
    target = written(tmp_path / "elsewhere" / "file", 100)
    home = tmp_path / "home"
    home.mkdir()
    (home / "link").symlink_to(target.parent)
    inside = home / "own"
    inside.mkdir()
    (inside / "link").symlink_to(target.parent)
    assert own_entries(home / "link") == []
    assert usage_of_all([home]).size < 100 + 200
    remove_all([home / "link", home / "link" / "absent", inside])
    assert target.exists() and (home / "link").is_symlink() and not inside.exists()
    assert leads_through_no_link(home, home / "own" / "file") is False
    assert leads_through_no_link(home, home / "link" / "file") is False
    assert leads_through_no_link(home, home / "file")


def test_a_removal_goes_on_where_a_killed_one_ended(tmp_path: Path) -> None:
    written(tmp_path / ".round.removing" / "half", 1)
    written(tmp_path / "round" / "file", 2)
    assert remove_all([tmp_path / "round"]).usage == DiskUsage(1, 2)
    assert own_entries(tmp_path) == []


def test_only_what_was_killed_is_left_over(tmp_path: Path) -> None:
    old = written(tmp_path / ".result.json.12-34.part", 1)
    written(tmp_path / ".fresh.json.12-34.part", 1)
    written(tmp_path / ".notes.part", 1)
    written(tmp_path / "result.json.12-34.part", 1)
    half = tmp_path / ".round-0001.removing"
    half.mkdir()
    for path in tmp_path.iterdir():
        os.utime(path, (1_000_000, 1_000_000))
    os.utime(tmp_path / ".fresh.json.12-34.part", (1_086_000, 1_086_000))
    assert set(leftovers(tmp_path, 1_086_401.0)) == {old, half}
