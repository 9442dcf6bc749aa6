"""Nodes call each other in a check; who does not answer, or answers as somebody else, is named."""

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from data_contracts.errors import SiloOperatorError
from infra.loopback import LOOPBACK
from silo_agent.training.nodes import reaching
from silo_agent.training.nodes.meeting_place import MeetingPlace, NodesLaunch
from silo_agent.training.nodes.reaching import call_all_nodes, require_answer
from tests.silo_agent.training.test_nodes import a_launch

WORDS = b"checked-nodes-x 1"
GIVEN_UP = 9


def listening(answer: Callable[[socket.socket], None] | None) -> tuple[socket.socket, str]:
    server = socket.create_server((LOOPBACK, 0))

    def serve() -> None:
        call, _ = server.accept()
        with call:
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
