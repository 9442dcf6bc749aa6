"""The agent's configuration, parsed once from `silo-agent.toml` in the silo's home directory.

Relative paths are relative to the home directory. Secrets lie in files of their own.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.wire_types import FederationId, PositiveCount, SiloId
from infra.addresses import address_fault
from infra.disk.toml_files import (
    MAX_TOML_BYTES,
    Seconds,
    TomlTable,
    parse_toml,
    read_limited,
    setting_fault,
)
from infra.loopback import is_loopback
from infra.storage.config import StorageSection
from silo_agent.nodes_settings import NodesSection
from silo_agent.personal_settings import PersonalSection

CONFIG_NAME = "silo-agent.toml"
MAX_RANKS = 1024
MAX_MICRO_BATCH = 1024
MAX_RESTARTS = 100

Device = Literal["cpu", "cuda"]
Offload = Literal["none", "cpu", "nvme"]
BaseWeights = Literal["full", "8-bit", "4-bit"]


class TrustSection(TomlTable):
    """Membership envelope that was handed over out of band; later versions must chain from it."""

    membership: Path = Path("membership.json")


class KeysSection(TomlTable):
    """Private keys of the silo; none ever leaves it. `identity` opens what is encrypted for it."""

    signing: Path = Path("keys/signing-key.pem")
    identity: Path = Path("keys/identity.txt")
    findings: Path = Path("keys/findings.key")


class DataSection(TomlTable):
    """Data root, outside of which nothing is read, the data contract, and what it refers to.

    `registries` is the directory with the copyright registries that rights holders gave this silo.
    `database` is a file with the SQLAlchemy URL of the database, for a contract over a table.
    `allow_hard_links`: whether files below the root may have more than one name.
    """

    root: Path = Path("data")
    contract: Path = Path("contract.yaml")
    registries: Path = Path("registries")
    database: Path | None = None
    allow_hard_links: bool = False


class TrainingSection(TomlTable):
    """How this silo trains: ranks, ZeRO stage, device.

    The ranks run on this machine, or with `nodes` evenly on several.
    `micro_batch` packed sequences of a rank go through the model at a time. `steps_at_most` is what
    this silo can do of a round; None: as many as a plan has. A plan that lets silos do fewer ends
    training before `time_limit_seconds`, or before adapters are due, with the steps that were done.
    `lock` names a file on which agents of one machine take turns; `silo_only_baseline` also trains
    an adapter that is never merged, so that the silo can see what the federation gives it. The
    processes stay with the base model in memory for `keep_minutes` after their last work, so that
    the next begins at once; 0 ends them with it.

    What says "auto" is chosen for each plan so that it fits the memory of a rank: `memory_gb`, or
    without it a share of what the machine has (`silo_agent.training.memory_plan`). `offload` moves
    parameters and optimizer out of a GPU, and needs stage 3. `precision` "auto" is what was
    measured to be fast here (`silo_agent.training.precision`). `base_weights` are held whole, or
    quantised while training, at stages 1 and 2; nothing that is measured for others is.
    """

    device: Device = "cpu"
    nodes: NodesSection | None = None
    ranks: Annotated[int, Field(ge=1, le=MAX_RANKS)] = 2
    threads_per_rank: Annotated[int, Field(ge=1, le=256)] = 1
    zero_stage: Literal[1, 2, 3, "auto"] = 2
    micro_batch: int | Literal["auto"] = 1
    memory_gb: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    gradient_checkpointing: bool | Literal["auto"] = False
    offload: Offload = "none"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    base_weights: BaseWeights = "full"
    steps_at_most: PositiveCount | None = None
    checkpoint_every_steps: PositiveCount = 2
    heldout_sequences: PositiveCount = 32
    silo_only_baseline: bool = True
    lock: Path | None = None
    keep_minutes: Annotated[float, Field(ge=0, le=10_080)] = 10.0
    time_limit_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 86_400

    @field_validator("micro_batch", mode="before")
    @classmethod
    def _counts(cls, value: object) -> object:
        is_count = type(value) is int and 1 <= value <= MAX_MICRO_BATCH
        if not is_count and value != "auto":
            raise ValueError(f'expected a number from 1 to {MAX_MICRO_BATCH}, or "auto"')
        return value

    @field_validator("gradient_checkpointing", mode="before")
    @classmethod
    def _is_a_choice(cls, value: object) -> object:
        if not isinstance(value, bool) and value != "auto":
            raise ValueError('expected true, false or "auto"')
        return value

    @model_validator(mode="after")
    def _nodes_share_the_ranks(self) -> "TrainingSection":
        if self.nodes is not None and self.ranks % self.nodes.count:
            raise ValueError(
                f"expected ranks ({self.ranks}, on all nodes) to be a multiple of count "
                f"({self.nodes.count}, of [training.nodes])"
            )
        return self

    @property
    def ranks_per_machine(self) -> int:
        """Ranks that share the memory and the GPUs of one machine."""
        return self.ranks // (self.nodes.count if self.nodes is not None else 1)

    @model_validator(mode="after")
    def _offload_partitions(self) -> "TrainingSection":
        if self.offload != "none" and self.zero_stage not in (3, "auto"):
            raise ValueError('offload needs zero_stage = 3 or "auto"')
        return self

    @model_validator(mode="after")
    def _quantised_weights_stay_whole(self) -> "TrainingSection":
        if self.base_weights == "full":
            return self
        if self.zero_stage == 3:
            raise ValueError(
                f'base_weights = "{self.base_weights}" needs zero_stage = 1, 2 or "auto": stage 3 '
                "shares weights out number by number, and quantised ones are not stored so"
            )
        if self.offload != "none":
            raise ValueError(
                f'base_weights = "{self.base_weights}" needs offload = "none", which goes with '
                "stage 3"
            )
        return self


class AgentSection(TomlTable):
    """Rhythm of the agent in seconds, and its patience.

    `max_restarts`: how often training, evaluation or a check that was killed or crashed is started
    again, before the silo says that it could not.
    """

    poll_seconds: Seconds = 5.0
    status_seconds: Seconds = 10.0
    max_restarts: Annotated[int, Field(ge=0, le=MAX_RESTARTS)] = 1


class DiskSection(TomlTable):
    """What stays on this silo's disk of rounds that are over; see `silo_agent.home.disk_rule`.

    `keep_rounds`: how many of each run before its newest. `keep_other_runs_days`: how long a run
    stays once the federation has gone on to another.
    """

    keep_rounds: Annotated[int, Field(ge=1, le=10_000)] = 1
    keep_other_runs_days: Annotated[int, Field(ge=0, le=36_500)] = 90


class MetricsSection(TomlTable):
    """Where people of this silo see how training goes; everything is off where nothing is said.

    `prometheus_port` is one of loopback. `mlflow` is the address of a server: one of this machine,
    or with `allow_remote_mlflow` any. `tensorboard` is a folder.
    """

    prometheus_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    mlflow: str | None = None
    allow_remote_mlflow: bool = False
    tensorboard: Path | None = None

    @model_validator(mode="after")
    def _mlflow_is_here_or_allowed(self) -> Self:
        if self.mlflow is None:
            return self
        fault = address_fault(self.mlflow)
        if fault is not None:
            raise ValueError(f"expected the address of a server in mlflow, with {fault}")
        if not is_loopback(self.mlflow) and not self.allow_remote_mlflow:
            raise ValueError(
                f"expected mlflow on this machine, not {self.mlflow}, unless allow_remote_mlflow "
                "is true: losses on training records would leave the machine"
            )
        return self


class SiloConfig(TomlTable):
    """Everything in `silo-agent.toml`."""

    silo: SiloId
    federation: FederationId
    policy: Path = Path("policy.toml")
    storage: StorageSection
    trust: TrustSection = TrustSection()
    keys: KeysSection = KeysSection()
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    personal: PersonalSection = PersonalSection()
    agent: AgentSection = AgentSection()
    disk: DiskSection = DiskSection()
    metrics: MetricsSection = MetricsSection()
    home: Path

    @model_validator(mode="after")
    def _personal_is_measured(self) -> Self:
        if self.personal.is_on and self.training.base_weights != "full":
            raise ValueError(
                'expected base_weights = "full" beside [personal]: a personal adapter is trained '
                "on the model that its losses are measured on"
            )
        return self

    def path(self, relative: Path) -> Path:
        """`relative` as seen from the home directory."""
        return relative if relative.is_absolute() else self.home / relative


def load_config(home: Path) -> SiloConfig:
    """Parse `silo-agent.toml` under `home`; raises SiloOperatorError naming the wrong setting."""
    path = home / CONFIG_NAME
    try:
        return parse_config(read_limited(path, MAX_TOML_BYTES), home)
    except FileNotFoundError:
        found = "no such file"
    except OSError as error:
        found = error.strerror or type(error).__name__
    raise _unusable(str(path), "a TOML file written by `silo-agent init`", found)


def parse_config(data: bytes, home: Path) -> SiloConfig:
    """The configuration in `data`, for the directory `home`; raises as `load_config` does."""
    path = home / CONFIG_NAME
    try:
        return SiloConfig.model_validate({**parse_toml(data), "home": home.resolve()})
    except ValidationError as error:
        where, expected, found = setting_fault(error)
        raise _unusable(f"setting {where} in {path}", expected, found) from None
    except ValueError as error:
        raise _unusable(str(path), "TOML", str(error)) from None


def _unusable(problem: str, expected: str, found: str) -> SiloOperatorError:
    action = "create or correct it and start the agent again"
    return SiloOperatorError(problem, expected=expected, found=found, action=action)
