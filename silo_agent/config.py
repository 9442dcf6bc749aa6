"""The agent's configuration, parsed once from `silo-agent.toml` in the silo's home directory.

Relative paths are relative to the home directory. Secrets lie in files of their own.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_contracts.errors import SiloOperatorError
from data_contracts.wire_types import FederationId, SiloId
from infra.storage_config import StorageSection

CONFIG_NAME = "silo-agent.toml"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrustSection(_Section):
    """Membership envelope that was handed over out of band; later versions must chain from it."""

    membership: Path = Path("membership.json")


class KeysSection(_Section):
    """Private keys of the silo; neither ever leaves it."""

    signing: Path = Path("keys/signing-key.pem")
    findings: Path = Path("keys/findings.key")


class DataSection(_Section):
    """Data root, outside of which nothing is read, the data contract, and what it refers to.

    `registries` is the directory with the copyright registries that rights holders gave this silo.
    `database` is a file with the SQLAlchemy URL of the database, for a contract over a table.
    """

    root: Path = Path("data")
    contract: Path = Path("contract.yaml")
    registries: Path = Path("registries")
    database: Path | None = None


class TrainingSection(_Section):
    """How this silo trains: ranks on one machine, ZeRO stage, device.

    `lock` names a file on which agents of one machine take turns; `silo_only_baseline` also trains
    an adapter that is never merged, so that the silo can see what the federation gives it.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    ranks: Annotated[int, Field(ge=1, le=1024)] = 2
    threads_per_rank: Annotated[int, Field(ge=1, le=256)] = 1
    zero_stage: Literal[1, 2, 3] = 2
    checkpoint_every_steps: Annotated[int, Field(ge=1)] = 2
    heldout_sequences: Annotated[int, Field(ge=1)] = 8
    silo_only_baseline: bool = True
    lock: Path | None = None
    time_limit_seconds: Annotated[int, Field(ge=1)] = 86_400


class AgentSection(_Section):
    """Rhythm of the agent in seconds."""

    poll_seconds: Annotated[float, Field(gt=0)] = 5.0
    status_seconds: Annotated[float, Field(gt=0)] = 10.0


class SiloConfig(_Section):
    """Everything in `silo-agent.toml`."""

    silo: SiloId
    federation: FederationId
    policy: Path = Path("policy.toml")
    storage: StorageSection
    trust: TrustSection = TrustSection()
    keys: KeysSection = KeysSection()
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    agent: AgentSection = AgentSection()
    home: Path

    def path(self, relative: Path) -> Path:
        """`relative` as seen from the home directory."""
        return relative if relative.is_absolute() else self.home / relative


def load_config(home: Path) -> SiloConfig:
    """Parse `silo-agent.toml` under `home`; raises SiloOperatorError naming the wrong setting."""
    path = home / CONFIG_NAME
    fields = _read_toml(path, "written by `silo-agent init`")
    try:
        return SiloConfig.model_validate({**fields, "home": home.resolve()})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SiloOperatorError(
            f"setting {where} in {path}",
            expected="a value that the documentation of the setting allows",
            found=first["msg"],
            action="correct the setting and start the agent again",
        ) from None


def _read_toml(path: Path, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = "no such file"
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        found = str(error)
    raise SiloOperatorError(
        str(path),
        expected=f"a TOML file {origin}",
        found=found,
        action="create or correct the file and start the agent again",
    )
