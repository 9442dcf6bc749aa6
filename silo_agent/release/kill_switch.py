"""The silo operator's switch: a file in the home directory that stops everything that leaves.

Checked before training, while it runs, and again before every release. Only a person at the silo
can turn it off.
"""

from pathlib import Path

SWITCH_NAME = "STOP"


class KillSwitch:
    """On while the file exists, or while the home directory cannot be looked into."""

    def __init__(self, home: Path) -> None:
        self._path = home / SWITCH_NAME

    def is_on(self) -> bool:
        """Whether the silo operator has stopped the agent."""
        try:
            return self._path.exists()
        except OSError:
            return True

    def turn_on(self) -> None:
        """Stop the agent; takes effect within a second, also in the middle of training."""
        self._path.touch()

    def turn_off(self) -> None:
        """Let the agent take part again."""
        self._path.unlink(missing_ok=True)
