"""The secrets of an attempt in the silo's home, from its first word to its last.

One directory for each attempt, mode 0700, that nothing copies elsewhere: backups leave it out,
because whoever has these secrets and the silo's masked file has its change. It goes when the shares
are revealed, or with the attempt.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from data_contracts.masking.held_shares import HeldShares
from data_contracts.masking.silo_secrets import SiloSecrets
from data_contracts.protocol.bucket_layout import RoundId, attempt_of
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from infra.disk.durable_files import write_durably

MASKING = "masking"
"""Directory of the home."""
SECRETS, HELD, MASKED = "secrets.bin", "held-shares.json", "masked.bin"
PRIVATE_DIRECTORY = 0o700

log = logging.getLogger("silo-agent")


@dataclass(frozen=True)
class KeptSecrets:
    """What one silo keeps of one attempt."""

    directory: Path

    @classmethod
    def of(cls, home: Path, plan: Verified[RoundPlan]) -> "KeptSecrets":
        """Those of the attempt that a plan opens."""
        return cls(directory_of(home, attempt_of(plan)))

    def begun(self) -> SiloSecrets:
        """New ones, on disk before anything that follows from them is said, or those of before."""
        kept = self.secrets()
        if kept is not None:
            return kept
        drawn = SiloSecrets.drawn()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(PRIVATE_DIRECTORY)
        write_durably(self.directory / SECRETS, drawn.to_bytes())
        return drawn

    def secrets(self) -> SiloSecrets | None:
        """Those that the attempt began with; None once they are erased, or were never drawn."""
        path = self.directory / SECRETS
        return SiloSecrets.from_bytes(path.read_bytes()) if path.exists() else None

    def held(self) -> HeldShares | None:
        """The shares of the others, as far as they were opened; one of each once it is settled."""
        path = self.directory / HELD
        return HeldShares.from_bytes(path.read_bytes()) if path.exists() else None

    def keep_held(self, held: HeldShares) -> None:
        """In place of what was held before: what is not in it is gone."""
        write_durably(self.directory / HELD, held.to_bytes())

    def forget_own(self) -> None:
        """The own secrets go, once the own change is masked and the shares of others are opened."""
        (self.directory / SECRETS).unlink(missing_ok=True)
        self.masked.unlink(missing_ok=True)

    @property
    def masked(self) -> Path:
        """Where the own change lies masked until it is released."""
        return self.directory / MASKED

    def erase(self) -> None:
        """All of it; what the system refuses to remove is said, since it should not stay."""
        if not self.directory.exists():
            return
        try:
            shutil.rmtree(self.directory)
        except OSError as error:
            log.error("secrets of masks stay in %s: %s; remove it", self.directory, error)


def directory_of(home: Path, round_id: RoundId) -> Path:
    """Where the secrets of an attempt are, if there are any."""
    return home / MASKING / round_id.path
