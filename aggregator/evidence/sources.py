"""An attempt's adapters as sources of tensors: what it starts from, and what silos submitted."""

from pathlib import Path

from aggregator.coordinator import Coordinator
from aggregator.evidence.spool import spool
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.block_quantisation import SCHEMES
from data_contracts.adapters.core_bases import WithBases
from data_contracts.adapters.quantised_format import open_quantised
from data_contracts.adapters.remembered_start import RememberedStart
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter
from data_contracts.protocol.records import RoundPlan
from infra.processes.worker_threads import default_workers


def starting_source(c: Coordinator, plan: RoundPlan) -> AdapterSource:
    """The adapter that silos of the plan start from, in the run's layout."""
    if plan.starting_adapter is None:
        return InitialAdapter(plan.exchanged)
    return open_adapter(spool(c, c.plans, plan.starting_adapter), plan.exchanged)


def remembered(starting: AdapterSource) -> RememberedStart:
    """For the adapters of all silos, each of which is held against what it started from."""
    return RememberedStart(starting, default_workers() + 1)


def local_adapter(plan: RoundPlan, silo: str, path: Path, starting: AdapterSource) -> AdapterSource:
    """A submitted file in the layout that the plan gives its silo, decoded module by module.

    `starting` is what the plan's silos start from; cores are between its bases, and a pair with
    them. Raises UntrustedInputError when the header of the file does not pass the gate.
    """
    layout = plan.submitted_by(silo)
    if plan.compression == "none":
        return _as_pairs(plan, open_adapter(path, layout), starting)
    return open_quantised(path, layout, SCHEMES[plan.compression], starting)


def mean_adapter(plan: RoundPlan, path: Path, starting: AdapterSource) -> AdapterSource:
    """What a masked sum gave, as if one silo had submitted it."""
    return _as_pairs(plan, open_adapter(path, plan.submitted), starting)


def _as_pairs(plan: RoundPlan, sent: AdapterSource, starting: AdapterSource) -> AdapterSource:
    return WithBases(starting, sent) if plan.sends_cores else sent
