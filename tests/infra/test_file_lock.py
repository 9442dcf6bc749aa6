"""Locks on files, between two holders of one process: each opens the file for itself."""

import threading
from pathlib import Path

import pytest

from data_contracts.errors import SiloOperatorError
from infra.disk.file_lock import held_alone, in_turn, is_held, shared

REFUSAL = SiloOperatorError("agent", expected="none", found="one", action="stop it")


def test_a_lock_is_held_inside_the_block_and_not_after_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    assert not path.exists()
    with held_alone(path, REFUSAL):
        assert is_held(path)
        with pytest.raises(SiloOperatorError, match="found one"), held_alone(path, REFUSAL):
            pass
    assert not is_held(path)


def test_those_who_share_a_lock_hold_it_together(tmp_path: Path) -> None:
    with shared(tmp_path / "lock"):
        with shared(tmp_path / "lock"):
            assert is_held(tmp_path / "lock")
        assert is_held(tmp_path / "lock")


def test_who_waits_has_the_lock_once_it_is_given_back(tmp_path: Path) -> None:
    entered = threading.Event()

    def wait() -> None:
        with in_turn(tmp_path / "lock"):
            entered.set()

    waiting = threading.Thread(target=wait)
    with in_turn(tmp_path / "lock"):
        waiting.start()
        assert not entered.wait(0.2)
    waiting.join(30)
    assert entered.is_set()
