"""What lies on the disks of a simulated federation."""

from pathlib import Path

from infra.disk.own_files import DiskCounter
from tests.simulator.federation import SimulatedFederation


def play_rounds(federation: SimulatedFederation, first: int, last: int) -> None:
    """Rounds one after the other, every one to its report, and a look of every silo after each."""
    for number in range(first, last + 1):
        federation.play(federation.open(number))
        federation.silos_act()


def size_of(path: Path) -> int:
    """Bytes below a directory."""
    return DiskCounter().usage(path).size


def names_in(directory: Path) -> set[str]:
    """What lies in a directory; nothing where it is not there."""
    return {path.name for path in directory.iterdir()} if directory.is_dir() else set()


def files_below(directory: Path) -> set[str]:
    """Every file below a directory, by its path there."""
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)) for path in found}
