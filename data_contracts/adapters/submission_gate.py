"""The last part of the gate: what a local adapter says against what its silo started from.

`adapter_format` and `quantised_format` check the bytes. Here every value is read once, and the
adapter is compared with its starting adapter: a factor that the plan does not train must be the one
that was handed out, and an adapter that changes nothing is not a contribution. Tensors that are
trained whole are trained in every round: no factor of theirs is frozen, and they count as any other
module in what an adapter changes.
"""

import numpy as np

from data_contracts.adapters.adapter_format import NOTHING_ADDED
from data_contracts.adapters.quantised_format import QuantisedFile
from data_contracts.adapters.starting_adapter import AdapterSource, Float32Array, narrowed
from data_contracts.adapters.tensor_layout import rejected
from data_contracts.adapters.whole_tensors import adds_something
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.training_recipe import TrainingRecipe


def check_submission(
    source: AdapterSource, starting: AdapterSource, recipe: TrainingRecipe
) -> None:
    """Read every module of `source`; raises UntrustedInputError with the rule for rejection.

    In the order of the modules: `adapter.not_finite` and `adapter.value_too_large` (by the
    source), `adapter.frozen_factor`; then `adapter.zero_delta` and `adapter.unchanged`.
    """
    start = narrowed(starting, source.layout)
    contributes = changes = False
    for target in source.layout.targets:
        if contributes and changes and _says_enough(source, target, recipe):
            continue
        a, b = source.module(target)
        contributes = contributes or adds_something(source.layout, target, b)
        if changes and (recipe.trained_factors == "both" or target.whole is not None):
            # Nothing more can follow from what the silo started from.
            continue
        start_a, start_b = start.module(target)
        if target.whole is None:
            _require_frozen(recipe, target, (a, start_a), (b, start_b))
            changes = changes or not np.array_equal(a, start_a)
        changes = changes or not np.array_equal(b, start_b)
    if not contributes:
        raise _refused(*NOTHING_ADDED, "zero_delta")
    if not changes:
        raise _refused("a change of the starting adapter", "the starting adapter", "unchanged")


def _says_enough(source: AdapterSource, target: AdapterTarget, recipe: TrainingRecipe) -> bool:
    """Whether a module's codes and scales alone show that it is within bounds, and what is frozen
    unmoved: then decoding it would say nothing more. They are checked as if it were decoded."""
    if not isinstance(source, QuantisedFile):
        return False
    found = source.checked(target)
    if target.whole is not None:
        return found.is_within
    keeps = {"both": True, "b": found.keeps_a, "a": found.keeps_b, "core": found.keeps_a}
    keeps_frozen = keeps[recipe.trained_factors]
    return found.is_within and keeps_frozen


def _require_frozen(
    recipe: TrainingRecipe,
    target: AdapterTarget,
    a: tuple[Float32Array, Float32Array],
    b: tuple[Float32Array, Float32Array],
) -> None:
    """The factor that is not trained, against its start."""
    frozen = {"both": None, "b": a, "a": b, "core": a}[recipe.trained_factors]
    if frozen is not None and not np.array_equal(*frozen):
        name = "B" if recipe.trained_factors == "a" else "A"
        raise _refused(
            f"the starting {name} of {target.module}, which the plan does not train",
            "another",
            "frozen_factor",
        )


def _refused(expected: str, found: str, rule: str) -> UntrustedInputError:
    return rejected("its values", expected, found, rule)
