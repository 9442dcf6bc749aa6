"""Ranks of several nodes meet through a store of the first rank, on the one interface between them.

PyTorch's store would listen on every interface of its machine, and asks nobody who they are. So it
gets a socket that is bound to one address, and says in the meeting place where that is.
"""

import json
import os
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from data_contracts.errors import SiloOperatorError
from infra.disk.durable_files import write_durably
from silo_agent.restarts import ProcessDiedError
from silo_agent.training.nodes.network_interface import address_of
from silo_agent.training.nodes.node import INTERFACE_VARIABLE, MEETING_VARIABLE, PORT_VARIABLE

ADDRESS = "address.json"
POLL_SECONDS = 0.1


def store_of_nodes(rank: int, ranks: int, timeout: timedelta) -> Any:
    """The store that all ranks share, when all can reach it; None for ranks of one machine.

    Raises SiloOperatorError when the port is taken, and ProcessDiedError when the first rank does
    not say where it is.
    """
    place = os.environ.get(MEETING_VARIABLE)
    if place is None:
        return None
    said = Path(place) / ADDRESS
    if rank == 0:
        listening = _listening(os.environ[INTERFACE_VARIABLE], int(os.environ[PORT_VARIABLE]))
        host, port = listening.getsockname()[:2]
        store = dist.TCPStore(  # type: ignore[attr-defined]
            host,
            port,
            ranks,
            is_master=True,
            timeout=timeout,
            wait_for_workers=False,
            # The store closes it.
            master_listen_fd=listening.detach(),
        )
        write_durably(said, json.dumps([host, port]).encode())
        return store
    host, port = _said(said, timeout)
    return dist.TCPStore(  # type: ignore[attr-defined]
        host, port, ranks, is_master=False, timeout=timeout, wait_for_workers=False
    )


def _listening(interface: str, port: int) -> socket.socket:
    family, address = address_of(interface, socket.gethostname())
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address, port))
    except OSError as error:
        listening.close()
        raise SiloOperatorError(
            f"port {port} on {interface} of {socket.gethostname()}",
            expected="to be free for the first rank",
            found=error.strerror or str(error),
            action="end what listens there, or set another port in [training.nodes], 0 for any",
        ) from None
    listening.listen()
    return listening


def _said(path: Path, timeout: timedelta) -> tuple[str, int]:
    deadline = time.monotonic() + timeout.total_seconds()
    while not path.exists():
        if time.monotonic() > deadline:
            raise ProcessDiedError(
                "meeting of the nodes",
                expected=f"the first rank to say in {path} where it listens",
                found=f"nothing within {timeout}",
                action="see the log of rank 0",
            )
        time.sleep(POLL_SECONDS)
    host, port = json.loads(path.read_bytes())
    return host, port
