"""The network interface that the nodes of a silo have between them, as one node sees it."""

import socket

import psutil

from data_contracts.errors import SiloOperatorError

_OF_ONE_LINK = "fe80:"
"""Such an address says nothing without the interface, which has another name for the others."""


def require_interface(name: str, host: str) -> None:
    """Raise SiloOperatorError where no interface here has that name, is up, and has an address."""
    there = {each: stats.isup for each, stats in psutil.net_if_stats().items()}
    if not there.get(name):
        raise SiloOperatorError(
            f"network interface of node {host}",
            expected=f"{name}, up, as [training.nodes] interface says",
            found=", ".join(each for each, is_up in sorted(there.items()) if is_up) or "none",
            action="name the interface that all nodes have between them in silo-agent.toml",
        )
    address_of(name, host)


def address_of(name: str, host: str) -> tuple[socket.AddressFamily, str]:
    """The first address of an interface of this node, IPv4 before IPv6, none of one link alone.

    SiloOperatorError where it has none.
    """
    found = [(each.family, each.address) for each in psutil.net_if_addrs().get(name, [])]
    return first_address(found, f"network interface {name} of {host}")


def first_address(
    found: list[tuple[socket.AddressFamily, str]], problem: str
) -> tuple[socket.AddressFamily, str]:
    """As `address_of`, of the addresses `found`, which may be of a link layer too."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for each, address in found:
            if each == family and not address.lower().startswith(_OF_ONE_LINK):
                return family, address
    raise SiloOperatorError(
        problem,
        expected="an address",
        found="none, or of one link alone" if found else "none",
        action="give it one, or name another interface in [training.nodes] of silo-agent.toml",
    )
