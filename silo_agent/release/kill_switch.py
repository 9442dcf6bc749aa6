"""The silo operator's switch: a file in the home directory that stops everything that leaves.

Checked before training, while it runs, and again before every release. Only a person at the silo
can turn it off.
"""

from pathlib import Path

from data_contracts.errors import SiloOperatorError
from infra.terminal import command_line

SWITCH_NAME = "STOP"


class KillSwitch:
    """On while the file exists, or while the home directory cannot be looked into."""

    def __init__(self, home: Path) -> None:
        self._home, self._path = home, home / SWITCH_NAME

    def is_on(self) -> bool:
        """Whether the silo operator has stopped the agent."""
        try:
            return self._path.exists()
        except OSError:
            return True

    def require_off(self) -> None:
        """Raise SiloOperatorError where it is on."""
        if self.is_on():
            clear = command_line("silo-agent", "run", "--clear-stop", "--home", self._home)
            raise SiloOperatorError(
                "kill switch",
                expected="off",
                found=f"{self._path}",
                action=f"run `{clear}` when the silo may take part again",
            )

    def turn_on(self) -> None:
        """Stop the agent; takes effect within a second, also in the middle of training."""
        self._path.touch()

    def turn_off(self) -> None:
        """Let the agent take part again."""
        self._path.unlink(missing_ok=True)
