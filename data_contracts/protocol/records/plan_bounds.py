"""Between which values the numbers of a plan make sense, whatever anybody's policy allows.

A plan outside of them is a record that can be read, so that what was signed before stays readable;
no coordinator makes one, and every silo refuses it. A negative limit on gradients turns training
around, a huge one or none bounds nothing, a warm-up longer than what a silo has to do may never
end. The bounds are wide: they tell numbers that work from numbers that are a mistake or an attack,
and no more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from data_contracts.protocol.records.merge_spec import FedExP
from data_contracts.protocol.records.round_plan import RoundPlan

Number = Decimal | int | float

MOST_LEARNING_RATE, MOST_WEIGHT_DECAY = 1, 1
LEAST_GRADIENT_NORM, MOST_GRADIENT_NORM = Decimal("0.000001"), 1_000_000
MOST_PROXIMAL_MU = 1_000
MOST_SCALING = 256
"""Of an adapter: alpha over rank; 2 is usual."""

MOST_SERVER_RATE, MOST_TAU = 10, 1
MOST_LOSS_INCREASE = 100
"""Nats per token: a model that knows nothing of a vocabulary of 150,000 has 12."""


@dataclass(frozen=True)
class Outside:
    """A number of a plan that is outside of its bounds."""

    field: str
    found: str
    least: str
    most: str


@dataclass(frozen=True)
class _Bound:
    field: str
    least: Number
    most: Callable[[RoundPlan], Number]
    value: Callable[[RoundPlan], Number]


def _fixed(most: Number) -> Callable[[RoundPlan], Number]:
    return lambda plan: most


def _server_rate(plan: RoundPlan) -> Number:
    optimizer = plan.merge.optimizer
    return 1 if isinstance(optimizer, FedExP) else optimizer.learning_rate


def _scaling(plan: RoundPlan) -> Number:
    """The largest of any silo."""
    owns = ({"rank": own.rank, "alpha": own.alpha} for own in plan.silo_layouts)
    layouts = (plan.layout, *(plan.layout.model_copy(update=own) for own in owns))
    return max(layout.scaling for layout in layouts)


_TINY = Decimal("1e-12")
BOUNDS = (
    _Bound(
        "recipe.learning_rate",
        _TINY,
        _fixed(MOST_LEARNING_RATE),
        lambda p: p.recipe.learning_rate,
    ),
    _Bound(
        "recipe.least_steps", 1, lambda p: p.recipe.local_steps, lambda p: p.recipe.fewest_steps
    ),
    _Bound(
        "recipe.warmup_steps", 0, lambda p: p.recipe.fewest_steps, lambda p: p.recipe.warmup_steps
    ),
    _Bound("recipe.weight_decay", 0, _fixed(MOST_WEIGHT_DECAY), lambda p: p.recipe.weight_decay),
    _Bound(
        "recipe.max_gradient_norm",
        LEAST_GRADIENT_NORM,
        _fixed(MOST_GRADIENT_NORM),
        lambda p: p.recipe.max_gradient_norm,
    ),
    _Bound("recipe.proximal_mu", 0, _fixed(MOST_PROXIMAL_MU), lambda p: p.recipe.proximal_mu),
    _Bound("adapter.alpha / adapter.rank", 0, _fixed(MOST_SCALING), _scaling),
    _Bound("merge.optimizer.learning_rate", 0, _fixed(MOST_SERVER_RATE), _server_rate),
    _Bound(
        "merge.optimizer.tau", 0, _fixed(MOST_TAU), lambda p: getattr(p.merge.optimizer, "tau", 0)
    ),
    _Bound(
        "publication.max_mean_increase",
        -MOST_LOSS_INCREASE,
        _fixed(MOST_LOSS_INCREASE),
        lambda p: p.publication.max_mean_increase,
    ),
    _Bound(
        "publication.max_silo_increase",
        -MOST_LOSS_INCREASE,
        _fixed(MOST_LOSS_INCREASE),
        lambda p: p.publication.max_silo_increase,
    ),
)
"""By the name that a setting has in `federation.toml`. Numbers that are not here have bounds in the
record itself, or in each silo's policy."""


def outside_bounds(plan: RoundPlan) -> Outside | None:
    """The first number of `plan` that makes no sense, or None."""
    for bound in BOUNDS:
        value, most = bound.value(plan), bound.most(plan)
        if not bound.least <= value <= most:
            return Outside(bound.field, f"{value}"[:40], f"{bound.least}", f"{most}")
    return None
