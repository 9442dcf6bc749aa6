"""The plan's defence, applied to the sources of a merge before they are merged.

The inner products of all deltas are summed over the modules, in float64 and one module in memory at
a time; from them a robust rule chooses one weight per silo, with which the exact merge goes on.
Under a rule that works entry by entry the merge itself chooses, and what is told of a silo is the
share of entries in which its value counted.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from aggregator.merge.blas_threads import one_blas_thread
from aggregator.merge.gram import product_kernel
from aggregator.merge.merge_inputs import DefenceWeights, MergeInputs, sorted_locals
from aggregator.merge.weighted_sum import Float64Array, Summand, WeightedSum
from aggregator.merge.whole_tensor import stacked_slices, trained_tensors
from aggregator.robust.alarms import alarms_of
from aggregator.robust.by_coordinates import entries_kept, most_trimmed
from aggregator.robust.centred_clipping import Centre
from aggregator.robust.kernel import norms
from aggregator.robust.robust_weights import SILOS_FOR_A_VOTE, RobustWeights, robust_weights
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.merge_spec import RobustSpec
from infra.processes.worker_threads import default_workers


@dataclass(frozen=True)
class SiloPart:
    """What a defence made of one silo; see `protocol.records.candidate.SiloInfluence`."""

    influence: float
    kept: float
    norm: float
    distance: float | None
    alarm: bool


@dataclass(frozen=True)
class Defended:
    """The inputs with their weights, and each silo's part by the digest of its adapter."""

    inputs: MergeInputs
    parts: dict[str, SiloPart]
    needs_person: bool


def defended(inputs: MergeInputs) -> Defended:
    """`inputs` as the plan's defence leaves them; unchanged where the plan has none.

    Raises FederationOperatorError when too few silos were admitted for the defence.
    """
    inputs = replace(inputs, locals=sorted_locals(inputs.locals))
    robust = inputs.merge.robust
    if robust is None:
        return Defended(inputs, {}, needs_person=False)
    centred = robust.rule == "centred_clipping"
    kernel, centre = delta_kernel(inputs if centred else replace(inputs, earlier=None))
    if robust.by_coordinates:
        return _entry_by_entry(inputs, robust, kernel)
    weights = robust_weights(kernel, _prior(inputs), robust, centre)
    chosen = DefenceWeights(
        tuple(weights.coefficients.tolist()),
        weights.centre_coefficient,
        tuple(weights.clipped.tolist()),
    )
    return Defended(replace(inputs, defence=chosen), _parts(inputs, weights), weights.needs_person)


def delta_kernel(inputs: MergeInputs) -> tuple[Float64Array, Centre | None]:
    """K_ij = <delta_i, delta_j> (n x n) over all modules, and the carried centre's products.

    The centre is the last published merged delta: the starting adapter minus the earlier one.
    """
    sources = [adapter.source for adapter in inputs.locals] + [inputs.starting]
    if inputs.earlier is not None:
        sources.append(inputs.earlier)

    def of_module(target: AdapterTarget) -> Float64Array:
        summands = [Summand.uniform(target, source, 1.0) for source in sources]
        return product_kernel(WeightedSum(target, summands))

    products = np.zeros((len(sources), len(sources)))
    with one_blas_thread(), ThreadPoolExecutor(default_workers()) as pool:
        for part in pool.map(of_module, inputs.layout.targets):
            products += part
    return _between_deltas(products, len(inputs.locals))


def _between_deltas(products: Float64Array, silos: int) -> tuple[Float64Array, Centre | None]:
    """From products of the silos, the start and perhaps the earlier one to those of deltas."""
    carried = len(products) - silos - 1
    to_delta = np.zeros((silos + carried, len(products)))
    to_delta[:silos, :silos] = np.eye(silos)
    to_delta[:silos, silos] = -1
    to_delta[silos:, silos:] = (1, -1) if carried else 0
    deltas = to_delta @ products @ to_delta.T
    deltas = (deltas + deltas.T) / 2
    if not carried:
        return deltas, None
    return deltas[:silos, :silos], Centre(deltas[silos, :silos], float(deltas[silos, silos]))


def _prior(inputs: MergeInputs) -> Float64Array:
    tokens = np.array([adapter.weight for adapter in inputs.locals], dtype=np.float64)
    return np.asarray(tokens / tokens.sum())


def _parts(inputs: MergeInputs, weights: RobustWeights) -> dict[str, SiloPart]:
    alarmed = {alarm.silo for alarm in weights.alarms}
    return {
        adapter.digest: SiloPart(
            influence=float(weights.influence[silo]),
            kept=float(weights.clipped[silo]),
            norm=float(weights.norms[silo]),
            distance=float(weights.distances[silo]),
            alarm=silo in alarmed,
        )
        for silo, adapter in enumerate(inputs.locals)
    }


def _entry_by_entry(inputs: MergeInputs, robust: RobustSpec, kernel: Float64Array) -> Defended:
    """Influence is a silo's share of the entries that the rule kept."""
    silos = len(inputs.locals)
    median = robust.rule == "median"
    tolerated = most_trimmed(silos) if median else robust.tolerated_silos
    position = 0 if inputs.trained == "a" else 1
    counts = np.zeros(silos)
    for target in inputs.layout.targets:
        if target.whole is not None:
            stacks = stacked_slices(trained_tensors(inputs, target))
        else:
            factors = [adapter.source.module(target)[position] for adapter in inputs.locals]
            stacks = iter([np.stack(factors)])
        for stack in stacks:
            counts += entries_kept(stack, tolerated)
    sizes = norms(kernel)
    alarmed = {alarm.silo for alarm in alarms_of("norm", sizes)}
    parts = {
        adapter.digest: SiloPart(
            influence=float(counts[silo] / counts.sum()),
            kept=1.0,
            norm=float(sizes[silo]),
            distance=None,
            alarm=silo in alarmed,
        )
        for silo, adapter in enumerate(inputs.locals)
    }
    return Defended(inputs, parts, needs_person=silos < SILOS_FOR_A_VOTE and bool(alarmed))
