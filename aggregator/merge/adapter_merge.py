"""Merge whole adapters, module by module, from files that passed the gate.

Guaranteed: the order of the submissions does not matter (they are sorted by digest), the same
inputs give the same bytes on one machine whatever the number of workers, the file is absent or
complete, and a merge that was killed continues where it was. Memory is that of one chunk of one
module per worker and does not grow with the number of silos, except under rules that work entry by
entry (median, trimmed mean), which need one factor of one module of all silos.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from aggregator.merge.blas_threads import one_blas_thread
from aggregator.merge.exactness import Exactness, exactness_of
from aggregator.merge.gram import squared_norm
from aggregator.merge.merge_inputs import MergeInputs, require_layouts, sorted_locals
from aggregator.merge.merged_file import FinishedModule, MergedFile, MergeJournal
from aggregator.merge.rules import MergedModule, merge_module
from aggregator.merge.server_optimizer import state_names
from aggregator.merge.server_state import state_entries
from aggregator.merge.weighted_sum import Summand, WeightedSum
from data_contracts.adapters.adapter_format import MAX_ABSOLUTE_VALUE, module_entries
from data_contracts.adapters.starting_adapter import AdapterSource
from data_contracts.adapters.tensor_layout import Entry
from data_contracts.adapters.whole_tensors import adds_something, stored
from data_contracts.errors import UnusableMergeError
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.merge_spec import FedExP
from infra.processes.worker_threads import default_workers, in_order

CANCELLED = 1e-6
"""Share of the summands' squared norms below which a sum is what float32 leaves of zero."""

ModuleProgress = Callable[[int, int], None]
ModuleMerger = Callable[[MergeInputs, list[int]], Iterator[tuple[int, MergedModule]]]
"""Merges the modules with these numbers, in any order."""


@dataclass(frozen=True)
class AdapterMerge:
    """The merged files and how exact they are, as a whole and per module in the layout's order.

    For the next round the rule `residual` leaves a residual, a server optimizer its state, and any
    other merge nothing: one of the two at most.
    """

    adapter: ArtifactRef
    residual: ArtifactRef | None
    server_state: ArtifactRef | None
    exactness: Exactness
    modules: tuple[tuple[str, Exactness], ...]


def merge_adapters(
    inputs: MergeInputs,
    into: Path,
    state_file: Path | None = None,
    on_progress: ModuleProgress | None = None,
    merge_modules: ModuleMerger | None = None,
) -> AdapterMerge:
    """Write the merge of `inputs` to the file `into`, and a residual or state to `state_file`.

    `on_progress` gets modules done and modules in all; `merge_modules` runs the modules elsewhere
    than on this machine's threads. Raises FederationOperatorError when weights or layouts do not
    fit together, and UnusableMergeError when a value is larger than every silo's gate would let
    through or overflows float32, and when the merged adapter is zero.
    """
    ordered = sorted_locals(inputs.locals)
    if inputs.defence is not None and ordered != inputs.locals:
        raise ValueError("weights of a defence belong to adapters in the order of their digests")
    if (inputs.step is None) == isinstance(inputs.merge.optimizer, FedExP):
        raise ValueError("a step goes with fedexp: the inputs are not those that `stepped` gave")
    inputs = replace(inputs, locals=ordered)
    require_layouts(inputs)
    journal_path = into.with_name(f".{into.name}.journal")
    into.parent.mkdir(parents=True, exist_ok=True)
    with (
        MergeJournal(journal_path, inputs.fingerprint) as journal,
        _files(inputs, into, state_file) as files,
    ):
        finished = _still_held(journal, files)
        missing = [i for i in range(len(inputs.layout.targets)) if i not in finished]
        for index, module in (merge_modules or merge_on_threads)(inputs, missing):
            _require_within_limit(inputs, index, module)
            entry = _written(inputs, index, module, files)
            journal.add(entry)
            finished[index] = entry
            if on_progress:
                on_progress(len(finished), len(inputs.layout.targets))
        _require_product(inputs, finished)
        references = [file.finish() for file in files]
    return _result(inputs, references, finished)


def merge_on_threads(
    inputs: MergeInputs, indices: list[int], workers: int | None = None, *, measured: bool = True
) -> Iterator[tuple[int, MergedModule]]:
    """Merge modules on this machine's cores, one BLAS thread each, in the order of `indices`."""
    workers = workers or default_workers()
    merge = partial(merge_module, replace(inputs, is_measured=measured))
    targets = [inputs.layout.targets[index] for index in indices]
    with one_blas_thread():
        yield from zip(indices, in_order(merge, targets, workers), strict=True)


@contextmanager
def _files(
    inputs: MergeInputs, into: Path, state_file: Path | None
) -> Iterator[tuple[MergedFile, ...]]:
    targets, rank = inputs.layout.targets, inputs.merge.residual_rank
    layouts = [(into, [module_entries(inputs.layout.rank, target) for target in targets])]
    if state_file is not None and rank is not None:
        layouts.append((state_file, [_residual_entries(rank, target) for target in targets]))
    elif state_file is not None and state_names(inputs.merge.optimizer):
        optimizer = inputs.merge.optimizer
        layouts.append((state_file, [state_entries(target, optimizer) for target in targets]))
    files = [MergedFile(path, modules) for path, modules in layouts]
    try:
        yield tuple(files)
    finally:
        for file in files:
            file.close()


def _residual_entries(rank: int, target: AdapterTarget) -> dict[str, Entry]:
    """Tensors that are trained whole leave no residual."""
    return module_entries(rank, target) if target.whole is None else {}


def _still_held(journal: MergeJournal, files: tuple[MergedFile, ...]) -> dict[int, FinishedModule]:
    """Journalled modules whose bytes are still in the part files."""
    held = {}
    for index, entry in journal.finished.items():
        digests = (entry.adapter_digest, entry.state_digest)
        if all(f.holds(index, d or "") for f, d in zip(files, digests, strict=False)):
            held[index] = entry
    return held


def _written(
    inputs: MergeInputs, index: int, module: MergedModule, files: tuple[MergedFile, ...]
) -> FinishedModule:
    target = inputs.layout.targets[index]
    return FinishedModule(
        index=index,
        adapter_digest=files[0].write(index, stored(target, module.a, module.b)),
        state_digest=files[1].write(index, module.state) if len(files) > 1 else None,
        is_zero=not (module.a.any() and adds_something(inputs.layout, target, module.b)),
        norms=module.norms,
    )


def _require_within_limit(inputs: MergeInputs, index: int, module: MergedModule) -> None:
    """What the gate would refuse at every silo is not written; says whose product is largest."""
    largest = max(float(np.abs(factor).max()) for factor in (module.a, module.b))
    if largest <= MAX_ABSOLUTE_VALUE:
        return
    target = inputs.layout.targets[index]
    sizes = {
        adapter.digest: _product_norm(target, adapter.source) for adapter in inputs.trainers(target)
    }
    loudest = max(sizes, key=lambda digest: sizes[digest])
    raise UnusableMergeError(
        f"merged adapter at {target.module}",
        expected=f"values of at most {MAX_ABSOLUTE_VALUE:g}, as every silo's gate asks",
        found=f"{largest:g}; the largest local product is that of adapter {loudest[:16]}",
        action="ask the silo that submitted it, or plan with merge.robust",
    )


def _require_product(inputs: MergeInputs, finished: dict[int, FinishedModule]) -> None:
    """One module that is more than what rounding leaves of deltas that cancel is enough."""
    if not any(_is_product(inputs, entry) for _, entry in sorted(finished.items())):
        raise UnusableMergeError(
            "merged adapter",
            expected="a product that is not zero in at least one module",
            found="zero in every module: the silos' deltas cancel",
            action="look at the admitted adapters; nothing was published",
        )


def _is_product(inputs: MergeInputs, entry: FinishedModule) -> bool:
    target = inputs.layout.targets[entry.index]
    summands = math.fsum(
        float(weight) ** 2 * _product_norm(target, adapter.source)
        for adapter, weight in inputs.shares(target)
        if not entry.is_zero
    )
    # A norm that was not measured is NaN and says nothing.
    return not (entry.is_zero or entry.norms.true_sum <= CANCELLED * summands)


def _product_norm(target: AdapterTarget, source: AdapterSource) -> float:
    return squared_norm(WeightedSum(target, [Summand.uniform(target, source, 1.0)]))


def _result(
    inputs: MergeInputs, references: list[ArtifactRef], finished: dict[int, FinishedModule]
) -> AdapterMerge:
    targets = inputs.layout.targets
    entries = [finished[index] for index in range(len(targets))]
    modules = tuple(
        (target.module, exactness_of([entry.norms]))
        for target, entry in zip(targets, entries, strict=True)
    )
    adapter, state = references[0], next(iter(references[1:]), None)
    residual, server_state = (None, state) if inputs.merge.residual_rank is None else (state, None)
    return AdapterMerge(
        adapter, residual, server_state, exactness_of([entry.norms for entry in entries]), modules
    )
