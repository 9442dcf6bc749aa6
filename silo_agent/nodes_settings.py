"""Settings for ranks on several machines: `[training.nodes]` of `silo-agent.toml`."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from data_contracts.protocol.wire_types import PositiveCount
from infra.disk.toml_files import TomlTable

LauncherName = Literal["hosts", "slurm", "kubernetes"]
MAX_NODES = 256

_INTERFACE = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$"
_KUBERNETES_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"

OPTIONS_OF_THE_AGENT = (
    *("nodes", "ntasks", "ntasks-per-node", "array", "wait", "requeue", "wrap", "output"),
    *("chdir", "parsable", "test-only"),
)
"""Of sbatch: the last of two counts, so that these would take the place of the agent's own."""

Line = Annotated[str, Field(pattern=r"^--[a-z][a-z-]*(=[^\n\r\x00]*)?$", max_length=500)]
"""An option of sbatch, as it is written on a line of its own behind `#SBATCH`."""


class HostsSection(TomlTable):
    """Machines that a remote shell reaches: a hostfile as DeepSpeed reads it, and the shell."""

    hostfile: Path = Path("hostfile")
    remote: Annotated[tuple[str, ...], Field(min_length=1)] = (
        *("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"),
        *("-o", "ServerAliveInterval=15"),
    )


class SlurmSection(TomlTable):
    """Options of sbatch that the site asks for, such as `--partition=gpu`."""

    options: tuple[Line, ...] = ()

    @field_validator("options")
    @classmethod
    def _leave_ours(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for option in value:
            name = option.removeprefix("--").partition("=")[0]
            # sbatch takes the beginning of a name for the name.
            if any(own.startswith(name) for own in OPTIONS_OF_THE_AGENT):
                raise ValueError(
                    f"expected options of the site, found --{name}, which the agent sets itself or "
                    f"cannot work with; leave out {', '.join(OPTIONS_OF_THE_AGENT)}"
                )
        return value


class KubernetesSection(TomlTable):
    """Where pods run, from which image, and the claim that holds the silo's home and base model.

    `mount` is where the claim is seen, by the agent as by the pods. `limits` are those of a pod.
    """

    namespace: Annotated[str, Field(pattern=_KUBERNETES_NAME)] = "default"
    image: Annotated[str, Field(min_length=1, max_length=500)]
    claim: Annotated[str, Field(pattern=_KUBERNETES_NAME)]
    mount: Path
    limits: dict[str, str] = Field(default_factory=dict)

    @field_validator("mount")
    @classmethod
    def _is_absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("expected an absolute path, the same for the agent and the pods")
        return value


class NodesSection(TomlTable):
    """Several machines, which all see the silo's home under the same path.

    `launcher` says who starts the ranks there, by the section of that name. `count` machines share
    the ranks evenly. They talk over the network `interface` of that name; the first rank listens
    there on `port`, 0 for any that is free. The nodes may take `start_minutes` to come, out of a
    queue, and `check_seconds` for a check; what is not heard of for `quiet_seconds` is dead.
    """

    launcher: LauncherName
    count: Annotated[int, Field(ge=1, le=MAX_NODES)]
    interface: Annotated[str, Field(pattern=_INTERFACE)]
    port: Annotated[int, Field(ge=0, le=65_535)] = 0
    start_minutes: Annotated[float, Field(gt=0, le=10_080)] = 60.0
    quiet_seconds: Annotated[float, Field(ge=2, le=3_600)] = 60.0
    check_seconds: PositiveCount = 60
    hosts: HostsSection = HostsSection()
    slurm: SlurmSection = SlurmSection()
    kubernetes: KubernetesSection | None = None

    @model_validator(mode="after")
    def _kubernetes_is_described(self) -> Self:
        if self.launcher == "kubernetes" and self.kubernetes is None:
            raise ValueError(
                "expected a section [training.nodes.kubernetes] with image, claim and mount"
            )
        return self
