"""The sections of `federation.toml` about the merge: rule, defence and server optimizer."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from aggregator.settings.values import Number
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records.merge_spec import (
    FedAvg,
    HeavyBall,
    MergeRule,
    MergeSpec,
    ServerOptimizer,
)
from data_contracts.protocol.records.round_plan import Compression
from data_contracts.protocol.wire_types import Count
from infra.disk.toml_files import TomlTable


class RobustSection(TomlTable):
    """The defence; see `protocol.records.merge_spec.RobustSpec` for choices and defaults."""

    tolerated_silos: Count
    clip: str = "median_norm"
    mixing: str = "nearest_neighbours"
    rule: str = "geometric_median"


class OptimizerSection(TomlTable):
    """The server optimizer by name; what is left out has its published value.

    See `data_contracts.protocol.records.merge_spec`.
    """

    name: Literal["fedavg", "heavy_ball", "fedexp", "fedavgm", "fedadam", "diloco"]
    learning_rate: Number | None = None
    momentum: Number | None = None
    max_step: Number | None = None
    beta1: Number | None = None
    beta2: Number | None = None
    tau: Number | None = None


class MergeSection(TomlTable):
    """How rounds merge; see `data_contracts.protocol.records.merge_spec`.

    Without `optimizer` it is `heavy_ball` where the rule and the defence go with one, and `fedavg`
    elsewhere. `sketch_width` is for the rule `sketch`; without it it is the least that is allowed.
    `rank_weights` is for silos with ranks of their own. `error`: above 8 silos the error
    of a merge is estimated from random probes, unless it is to be exact. `compression` is that of
    the local adapters on their way from the silos; `docs/decisions/0016-compressed-differences.md`
    says why int8 is the default, and the cores of `fed_sb` have none.
    `dask_scheduler` is where modules are merged, instead of on this machine's threads: the address
    of a scheduler ("tls://host:8786"), or "local" for processes of this machine.
    """

    rule: MergeRule = "stack_truncate"
    optimizer: OptimizerSection | None = None
    robust: RobustSection | None = None
    residual_rank: int | None = None
    sketch_width: Annotated[int, Field(ge=1)] | None = None
    rank_weights: Literal["trained"] | None = None
    error: Literal["estimated", "exact"] = "estimated"
    compression: Compression = "int8"
    dask_scheduler: str | None = None
    dask_slice_modules: Annotated[int, Field(ge=1)] = 8

    @model_validator(mode="before")
    @classmethod
    def _cores_are_sent_as_they_are(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("rule") != "fed_sb":
            return data
        return {"compression": "none"} | data

    def spec(self, weight_cap_tokens: int) -> MergeSpec:
        """As the plan names it; raises FederationOperatorError for what does not go together."""
        elsewhere = {"error", "compression", "dask_scheduler", "dask_slice_modules"}
        fields = {"optimizer": self._optimizer} | self.model_dump(
            exclude=elsewhere, exclude_none=True
        )
        try:
            return MergeSpec.model_validate(fields | {"weight_cap_tokens": weight_cap_tokens})
        except ValidationError as error:
            raise FederationOperatorError(
                "settings of the merge",
                expected="a rule, an optimizer and a defence that go together",
                found=error.errors(include_url=False)[0]["msg"],
                action="correct [merge] in federation.toml",
            ) from None

    @property
    def _optimizer(self) -> ServerOptimizer:
        """The default; see `docs/decisions/0017-the-default-merge.md`."""
        centred = self.robust is not None and self.robust.rule == "centred_clipping"
        carries = self.rule in {"stack_truncate", "sketch", "fed_sb"} and not centred
        return HeavyBall() if carries else FedAvg()
