"""The layout that this silo trains, where the plan gives it one of its own, and its files.

The run's adapter keeps the run's layout: what is downloaded and measured for the federation is
never narrowed. What the silo trains, releases and compares itself with has the silo's layout.
"""

from pathlib import Path

from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.starting_adapter import RestOfAdapter, narrowed, tensors_of
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from silo_agent.training.adapter_file import write_adapter

STARTING_NAME = "starting-adapter.safetensors"
REST_NAME = "rest-of-starting-adapter.safetensors"


def starting_file(
    plan: RoundPlan, silo: str, starting: Path | None, directory: Path
) -> Path | None:
    """File that the silo's training starts from, in the silo's layout; None means the seed.

    A narrower layout is cut from `starting`, a file of the run's layout, into `directory`. Without
    a file nothing has to be cut: the seed draws the same leading rows whatever the rank is.
    """
    own = plan.layout_of(silo)
    if starting is None or own == plan.layout:
        return starting
    path = directory / STARTING_NAME
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_adapter(path, own, tensors_of(narrowed(open_adapter(starting, plan.layout), own)))
    return path


def rest_file(plan: RoundPlan, silo: str, starting: Path | None, directory: Path) -> Path | None:
    """File of what the silo's layout leaves out of `starting`; None where nothing is left out.

    It is of the run's layout without whole tensors, all of which the silo trains, and acts, frozen,
    beside what the silo trains. Otherwise the silo would learn again what it was cut off from, and
    the merge would count that twice.
    """
    own = plan.layout_of(silo)
    whole = (own.rank, own.targets) == (plan.layout.rank, plan.layout.targets)
    if starting is None or whole:
        return None
    path = directory / REST_NAME
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    rest = RestOfAdapter(open_adapter(starting, plan.layout), own)
    write_adapter(path, rest.layout, tensors_of(rest))
    return path


def own_layout(plan: RoundPlan, silo: str) -> AdapterLayout | None:
    """The silo's layout where it differs from the run's."""
    own = plan.layout_of(silo)
    return None if own == plan.layout else own


def of_layout(path: Path, layout: AdapterLayout) -> Path | None:
    """`path` if an adapter of this layout is there; it may be of a round with another layout."""
    try:
        open_adapter(path, layout)
    except (FileNotFoundError, UntrustedInputError):
        return None
    return path
