"""What an adapter consists of: its tensors, by name and shape, and what each of them starts as.

Most modules carry a LoRA pair. A head that the base model lacks, such as the classes of a
contract, is trained whole instead: its tensors are in the adapter as they are (PEFT's
`modules_to_save`). Such a tensor is a target as any other, with a pair whose A is the identity, is
never trained and is in no file: so what holds for pairs holds for it (weighted sums, inner
products, norms), and no rule knows a head from a layer.
"""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_contracts.protocol.wire_types import Count, ModuleName, Part, PositiveCount, SiloId

Whole = Literal["matrix", "vector"]
Initial = Literal["zeros", "ones", "normal", "lora_a", "core"]
"""What a whole tensor starts as; normal: drawn from the seed of the layout; lora_a: a factor A that
is exchanged by itself, as `starting_adapter.initial_a` draws it for its module; core: zero, since
of the core between the bases of a module only the change is sent (see `adapters.core_bases`)."""

A_SUFFIX, B_SUFFIX = ".lora_A.weight", ".lora_B.weight"
"""What PEFT appends to the name of a module for its two factors."""
CORE_SUFFIX = ".lora_core.weight"
"""And what we append for the core between its bases."""

NORMAL_DEVIATION = 0.02
"""As the models whose heads these are have it (`initializer_range`)."""


class AdapterTarget(Part):
    """A linear module that carries a LoRA pair A (rank x in_features), B (out_features x rank).

    With `whole` it is a tensor that is trained as it is: `module` is then the name of the parameter
    (`classifier.weight`), a matrix (out_features x in_features) or, with `in_features` 1, a vector
    (out_features,). Its pair is A = identity (in_features x in_features), which is never trained
    and in no file, and B = the tensor; its scaling is 1. `initial` is what it starts as.
    """

    module: ModuleName
    in_features: PositiveCount
    out_features: PositiveCount
    whole: Annotated[Whole | None, Field(exclude_if=lambda value: value is None)] = None
    initial: Annotated[Initial | None, Field(exclude_if=lambda value: value is None)] = None

    @model_validator(mode="after")
    def _whole_tensors_have_a_start(self) -> "AdapterTarget":
        if (self.whole is None) != (self.initial is None):
            raise ValueError("whole and initial go together")
        if self.whole == "vector" and self.in_features != 1:
            raise ValueError("a vector has in_features 1")
        is_a = self.initial == "lora_a"
        if is_a and not (self.whole == "matrix" and self.module.endswith(A_SUFFIX)):
            raise ValueError("what starts as a factor A is a matrix with the name of one")
        if self.whole is not None and not is_a and self.module.endswith((A_SUFFIX, B_SUFFIX)):
            raise ValueError("a tensor that is trained whole cannot have the name of a factor")
        if self.is_core != self.module.endswith(CORE_SUFFIX) or (
            self.is_core and not (self.whole == "matrix" and self.in_features == self.out_features)
        ):
            raise ValueError("what is a core has the name of one, and is a square matrix")
        return self

    @property
    def is_shared_a(self) -> bool:
        """Whether it is the factor A of a module, exchanged without its B."""
        return self.initial == "lora_a"

    @property
    def is_core(self) -> bool:
        """Whether it is the change of a core between the bases of a module."""
        return self.initial == "core"

    def a_alone(self, rank: int) -> "AdapterTarget":
        """The factor A (rank x in_features) of a module that carries a pair, as a whole tensor."""
        return AdapterTarget(
            module=f"{self.module}{A_SUFFIX}",
            in_features=self.in_features,
            out_features=rank,
            whole="matrix",
            initial="lora_a",
        )

    def core(self, rank: int) -> "AdapterTarget":
        """The change of the core (rank x rank) of a module that carries a pair."""
        return AdapterTarget(
            module=f"{self.module}{CORE_SUFFIX}",
            in_features=rank,
            out_features=rank,
            whole="matrix",
            initial="core",
        )


class AdapterLayout(Part):
    """Exact layout of every adapter in the run; the gate accepts nothing else."""

    rank: Annotated[int, Field(ge=1, le=1024)]
    alpha: Annotated[int, Field(ge=1, le=4096)]
    seed: Count
    targets: Annotated[tuple[AdapterTarget, ...], Field(min_length=1, max_length=2000)]
    use_rslora: bool = False

    @property
    def scaling(self) -> float:
        """LoRA scaling s = alpha / rank (Hu et al. 2021, section 4.1).

        With `use_rslora` it is alpha / sqrt(rank) (Kalajdzievski 2023).
        """
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)

    def rank_of(self, target: AdapterTarget) -> int:
        """Rows of A and columns of B at one target."""
        return self.rank if target.whole is None else target.in_features

    def scaling_of(self, target: AdapterTarget) -> float:
        """What B A is multiplied with at one target."""
        return self.scaling if target.whole is None else 1.0

    @property
    def pairs(self) -> tuple[AdapterTarget, ...]:
        """The targets that carry a LoRA pair."""
        return tuple(target for target in self.targets if target.whole is None)

    @property
    def wholes(self) -> tuple[AdapterTarget, ...]:
        """The targets that are trained whole."""
        return tuple(target for target in self.targets if target.whole is not None)

    @property
    def compared(self) -> tuple[AdapterTarget, ...]:
        """The targets by whose changes copies are told: pairs, and factors A without their B."""
        return tuple(t for t in self.targets if t.whole is None or t.is_shared_a)

    @property
    def without_wholes(self) -> "AdapterLayout":
        """The layout of what acts beside another adapter: a sum of two heads means nothing."""
        return self.model_copy(update={"targets": self.pairs}) if self.wholes else self

    def residual_of(self, rank: int) -> "AdapterLayout":
        """The layout of a residual of this rank, whose scaling is 1."""
        changes = {"rank": rank, "alpha": rank, "use_rslora": False, "targets": self.pairs}
        return self.model_copy(update=changes)

    @property
    def has_a_alone(self) -> bool:
        """Whether it is what `a_alone` makes: factors A without their B."""
        return any(target.is_shared_a for target in self.targets)

    @property
    def a_alone(self) -> "AdapterLayout":
        """The layout of what silos exchange that share A and keep B: A of each pair as a whole
        tensor, and what is trained whole as it is, in the same order."""
        targets = tuple(t.a_alone(self.rank) if t.whole is None else t for t in self.targets)
        return self.model_copy(update={"targets": targets})

    @property
    def has_cores(self) -> bool:
        """Whether it is what `cores` makes: changes of cores without their bases."""
        return any(target.is_core for target in self.targets)

    @property
    def cores(self) -> "AdapterLayout":
        """The layout of what silos send that train cores: of each pair the change of its core, and
        what is trained whole as it is, in the same order."""
        targets = tuple(t.core(self.rank) if t.whole is None else t for t in self.targets)
        return self.model_copy(update={"targets": targets})

    @model_validator(mode="after")
    def _modules_are_distinct(self) -> "AdapterLayout":
        if len({target.module for target in self.targets}) != len(self.targets):
            raise ValueError("modules in targets must be distinct")
        shared = [target for target in self.targets if target.is_shared_a]
        if not self.pairs and not shared and not self.has_cores:
            raise ValueError("expected at least one module that carries a LoRA pair")
        if shared and (self.pairs or any(target.out_features != self.rank for target in shared)):
            raise ValueError("factors A go without pairs, each with as many rows as the rank")
        cores = [target for target in self.targets if target.is_core]
        others = self.pairs or shared or any(target.in_features != self.rank for target in cores)
        if cores and others:
            raise ValueError("cores go without pairs, each with as many rows as the rank")
        return self


class SiloLayout(Part):
    """Layout of one silo whose machine takes less than the whole: its own rank, alpha, modules.

    `modules` None means all modules of the run's adapter.
    """

    silo: SiloId
    rank: Annotated[int, Field(ge=1, le=1024)]
    alpha: Annotated[int, Field(ge=1, le=4096)]
    modules: Annotated[tuple[ModuleName, ...], Field(min_length=1)] | None = None

    def within(self, layout: AdapterLayout) -> AdapterLayout:
        """What the silo trains of the run's `layout`; tensors that are trained whole it has all."""
        wanted = self.modules
        targets = tuple(
            t for t in layout.targets if wanted is None or t.whole or t.module in wanted
        )
        changes = {"rank": self.rank, "alpha": self.alpha, "targets": targets}
        return layout.model_copy(update=changes)
