"""Nodes call each other in a check; who does not answer, or answers as somebody else, is named."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import pytest

from data_contracts.errors import SiloOperatorError
from infra.loopback import LOOPBACK
from silo_agent.training.nodes import reaching
from silo_agent.training.nodes.meeting_place import MeetingPlace, NodesLaunch
from silo_agent.training.nodes.reaching import call_all_nodes, require_answer
from silo_agent.training.run_files import read_failure
from tests.silo_agent.training.test_nodes import a_launch

WORDS = b"checked-nodes-x 1"
GIVEN_UP = 9


def listening(answer: Callable[[socket.socket], None] | None) -> tuple[socket.socket, str]:
    server = socket.create_server((LOOPBACK, 0))

    def serve() -> None:
        call, _ = server.accept()
        with call, suppress(OSError):
            if answer is not None:
                answer(call)

    if answer is not None:
        threading.Thread(target=serve, daemon=True).start()
    return server, f"{LOOPBACK} {server.getsockname()[1]}"


def test_three_nodes_reach_each_other(tmp_path: Path) -> None:
    place, launch = MeetingPlace(tmp_path), a_launch(tmp_path, is_check=True, nodes=3)
    place.open(launch)
    assert _called(place, launch, 3) == [0, 0, 0]
    assert all(place.ended(number) for number in range(3))
    with pytest.raises(SiloOperatorError, match="Connection refused"):
        require_answer(place.listens(1) or "", WORDS, ("gpu-1", 1))


def _called(place: MeetingPlace, launch: NodesLaunch, nodes: int) -> list[int]:
    def call(number: int) -> int:
        return call_all_nodes(place, launch, number, lambda: GIVEN_UP if place.is_closed else None)

    with ThreadPoolExecutor(nodes) as threads:
        return list(threads.map(call, range(nodes)))


def test_a_node_that_does_not_reach_another_goes_on_answering(tmp_path: Path) -> None:
    """Node 2 cannot call node 0; node 1, which calls last, still reaches both."""
    place, launch = MeetingPlace(tmp_path), a_launch(tmp_path, is_check=True, nodes=3)
    place.open(launch)

    class Firewall(MeetingPlace):
        def listens(self, number: int) -> str | None:
            known = super().listens(number)
            return f"{LOOPBACK} 1" if known and number == 0 else known

    class Late(MeetingPlace):
        def listens(self, number: int) -> str | None:
            return super().listens(number) if place.failure(2).exists() else None

    places = {0: place, 1: Late(tmp_path), 2: Firewall(tmp_path)}

    def over() -> int | None:
        return GIVEN_UP if place.is_closed else None

    with ThreadPoolExecutor(3) as threads:
        calls = [
            threads.submit(call_all_nodes, places[number], launch, number, over)
            for number in range(3)
        ]
        while not (place.ended(0) and place.ended(1)):
            time.sleep(0.02)
        assert not calls[2].done(), "it answers as long as the check goes on"
        place.close()
        assert calls[2].result() == GIVEN_UP
    failure = read_failure(place.failure(2))
    assert failure is not None and "to node 0" in failure.problem
    assert not place.failure(0).exists() and not place.failure(1).exists()


def test_a_node_gives_signs_of_life_while_it_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaching, "CALL_SECONDS", 1.0)
    place, launch = MeetingPlace(tmp_path), a_launch(tmp_path, is_check=True, nodes=2)
    place.open(launch)
    silent, address = listening(None)
    place.say_listens(1, address)
    signs = count()
    with closing(silent):
        assert call_all_nodes(place, launch, 0, lambda: next(signs) > 3 or None) == 1
    assert not place.failure(0).exists(), "it was given up before the call had ended"


def test_an_answer_that_drips_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "CALL_SECONDS", 0.5)

    def drip(call: socket.socket) -> None:
        for _ in range(100):
            call.sendall(b"x")
            time.sleep(0.1)

    server, address = listening(drip)
    began = time.monotonic()
    with closing(server), pytest.raises(SiloOperatorError, match="timed out"):
        require_answer(address, WORDS, ("gpu-1", 1))
    assert time.monotonic() - began < 5


def test_a_node_that_waits_for_others_ends_when_it_is_not_wanted(tmp_path: Path) -> None:
    place, launch = MeetingPlace(tmp_path), a_launch(tmp_path, is_check=True, nodes=2)
    place.open(launch)
    place.close()
    assert _called(place, launch, 1) == [GIVEN_UP]
    assert place.ended(0) is None


def test_an_answer_in_pieces_is_one() -> None:
    def in_pieces(call: socket.socket) -> None:
        for byte in WORDS:
            call.sendall(bytes([byte]))

    server, address = listening(in_pieces)
    with closing(server):
        require_answer(address, WORDS, ("gpu-1", 1))


@pytest.mark.parametrize("answer", [b"checked-nodes-x 2", b"SSH-2.0-OpenSSH", b"", WORDS * 100])
def test_somebody_else_is_not_taken_for_a_node(answer: bytes) -> None:
    server, address = listening(lambda call: call.sendall(answer))
    expected = "from gpu-1 to node 1: expected an answer at 127.0.0.1, port .*somebody else"
    with closing(server), pytest.raises(SiloOperatorError, match=expected):
        require_answer(address, WORDS, ("gpu-1", 1))


def test_who_listens_and_says_nothing_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reaching, "CALL_SECONDS", 0.2)
    server, address = listening(None)
    with closing(server), pytest.raises(SiloOperatorError, match=r"found timed out\.") as raised:
        require_answer(address, WORDS, ("gpu-1", 1))
    assert "let the nodes reach each other's ports" in raised.value.action
