"""Whether the nodes of a silo reach each other, tried before ranks have to.

Each node listens on the interface between them, as its ranks will, and says where; each then calls
all others, who answer with who they are. So an address that two nodes have in common, such as that
of a container bridge, is found too.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from data_contracts.errors import SiloOperatorError
from infra.processes.exit_codes import FAULT
from silo_agent.nodes_settings import MAX_NODES
from silo_agent.training.nodes.meeting_place import Ended, MeetingPlace, NodesLaunch
from silo_agent.training.nodes.network_interface import address_of
from silo_agent.training.run_files import write_failure

CALL_SECONDS = 10.0
"""Of one call, its answer included: where packets are dropped nobody answers."""

POLL_SECONDS = 0.1
_LONGEST = 256


def call_all_nodes(
    place: MeetingPlace, launch: NodesLaunch, number: int, over: Callable[[], int | None]
) -> int:
    """0 when this node has reached all others and was reached by them; else what `over` says when
    it is not wanted any more. `over` is asked all the time: it gives this node's signs of life.

    A node that this one does not reach is its failure in the meeting place. It goes on answering
    all the same until the check is over, because others who call would blame it.
    """
    host, others = socket.gethostname(), [n for n in range(launch.nodes) if n != number]
    with _answering(launch.interface, host, _words(place, number)) as address:
        place.say_listens(number, address)
        if (code := _wait(lambda: all(place.listens(n) for n in others), over)) is not None:
            return code
        calls = _Calls(place, host, others)
        if (code := _wait(lambda: not calls.is_alive(), over)) is not None:
            return code
        if calls.fault is not None:
            write_failure(place.failure(number), calls.fault)
            return _wait(lambda: False, over) or FAULT
        place.say_ended(number, Ended(host=host, code=0))
        return _wait(lambda: all(place.ended(n) for n in others), over) or 0


class _Calls(threading.Thread):
    """Calls all others; `fault` is that of the first who does not answer as one of them."""

    def __init__(self, place: MeetingPlace, host: str, others: list[int]) -> None:
        super().__init__(name="calling", daemon=True)
        self._place, self._host, self._others = place, host, others
        self.fault: SiloOperatorError | None = None
        self.start()

    def run(self) -> None:
        """Until all have answered or one has not."""
        for other in self._others:
            words, address = _words(self._place, other), self._place.listens(other) or ""
            try:
                require_answer(address, words, (self._host, other))
            except SiloOperatorError as error:
                self.fault = error
                return


def require_answer(address: str, words: bytes, of: tuple[str, int]) -> None:
    """Raise SiloOperatorError unless a node at `address` ("10.0.0.1 4000") answers with `words`.

    `of` are the host that calls, and the number of the node that it calls.
    """
    caller, number = of
    where, _, port = address.rpartition(" ")
    answer, until = b"", time.monotonic() + CALL_SECONDS
    try:
        with socket.create_connection((where, int(port)), CALL_SECONDS) as call:
            while len(answer) < _LONGEST:
                call.settimeout(max(0.01, until - time.monotonic()))
                if not (read := call.recv(_LONGEST)):
                    break
                answer += read
    except OSError as error:
        found = str(error.strerror or error or type(error).__name__)
    else:
        found = "somebody else answers there: do two nodes have the same address?"
    if answer != words:
        raise SiloOperatorError(
            f"network between the nodes, from {caller} to node {number}",
            expected=f"an answer at {where}, port {port}",
            found=found,
            action="let the nodes reach each other's ports on the interface that [training.nodes] "
            "names, or name another one",
        )


def _words(place: MeetingPlace, number: int) -> bytes:
    """Of a node of this check, and of no other."""
    return f"{place.directory.name} {number}".encode()


@contextmanager
def _answering(interface: str, host: str, words: bytes) -> Iterator[str]:
    """Whoever calls gets `words`; gives address and port, which the system chooses."""
    family, address = address_of(interface, host)
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.bind((address, 0))
        listening.listen(MAX_NODES)

        def answer() -> None:
            # Until it is closed: shutdown wakes who waits for a call.
            while not is_over.is_set():
                with suppress(OSError):
                    call, _ = listening.accept()
                    with call:
                        call.sendall(words)

        is_over = threading.Event()
        thread = threading.Thread(target=answer, name="answering", daemon=True)
        thread.start()
        try:
            yield f"{address} {listening.getsockname()[1]}"
        finally:
            is_over.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _wait(is_so: Callable[[], bool], over: Callable[[], int | None]) -> int | None:
    while not is_so():
        if (code := over()) is not None:
            return code
        time.sleep(POLL_SECONDS)
    return None
