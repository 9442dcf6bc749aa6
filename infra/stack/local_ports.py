"""TCP ports on loopback: free ones, or a message that says who has the one that was asked for."""

import os
import secrets
import socket

import psutil

from data_contracts.errors import ConsortiaError
from data_contracts.limits import HIGHEST_PORT
from infra.loopback import LOOPBACK

_AUTOMATIC_FIRST = 20_000
_AUTOMATIC_COUNT = 10_000
_ATTEMPTS = 200
FIRST_UNPRIVILEGED_PORT = 1024


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError):
            return False
    return True


def free_port(*offsets: int) -> int:
    """A port p such that p and every p + offset are free, below the kernel's ephemeral range."""
    for _ in range(_ATTEMPTS):
        port = _AUTOMATIC_FIRST + secrets.randbelow(_AUTOMATIC_COUNT)
        if all(is_free(port + offset) for offset in (0, *offsets)):
            return port
    raise ConsortiaError(
        "choosing a port",
        expected=f"a free one from {_AUTOMATIC_FIRST} on",
        found=f"none in {_ATTEMPTS} attempts",
        action="name ports that are free on this machine",
    )


def require_free(port: int, what: str, option: str = "") -> None:
    """Raise ConsortiaError naming the owner of `port` when it is taken, and the command line's
    `option` that chooses another one."""
    if is_free(port):
        return
    choose = f"choose another port with {option}" if option else "choose another port"
    if not 0 < port <= HIGHEST_PORT:
        expected, found = f"a port from 1 to {HIGHEST_PORT}", "none that exists"
    elif port < FIRST_UNPRIVILEGED_PORT and os.geteuid() != 0:
        expected, found = f"a port from {FIRST_UNPRIVILEGED_PORT} on", "one that is root's to give"
    else:
        expected, found = "a free port", f"taken by {_owner(port)}"
        choose = f"stop that process, or {choose}"
    raise ConsortiaError(
        f"port {port} for {what}",
        expected=expected,
        found=found,
        action=f"{choose} (0 takes any free one)",
    )


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections(kind="tcp"):
            is_it = connection.laddr and connection.laddr.port == port
            if is_it and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        return "a process of another user"
    return "another process"
