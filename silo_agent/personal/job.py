"""A round's training of the personal adapter, made from the silo's own job of that round.

Same records, as many steps, on the model as it is pinned, since losses are measured on that; both
factors are trained, and nothing of it is submitted.
`dual` trains beside the federation's adapter, frozen and complete; `ditto` starts where the
federated training starts and is pulled back to there.

Of what the plan trains whole, such as a head, `dual` has nothing of its own: the federation's acts,
frozen, and before there is one the head as it starts, which is written beside the personal pairs.
`ditto` trains it like everything else.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter, tensors_of
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from silo_agent.collaborators import GlobalAdapter
from silo_agent.personal.joined import joined_file, joined_layout
from silo_agent.personal_settings import PersonalSection
from silo_agent.training.adapter_file import write_adapter
from silo_agent.training.engine_spec import PINNED
from silo_agent.training.job import TrainingJob
from silo_agent.training.personal_part import PersonalPart
from silo_agent.training.silo_only import SiloOnlyBaseline

DIRECTORY = "personal"
"""Below the directory of a round's work, with which it goes."""
BESIDE_NAME = "beside.safetensors"


@dataclass(frozen=True)
class Beside:
    """What acts, frozen, with the personal adapter; no file, no layout: nothing does."""

    path: Path | None
    layout: AdapterLayout | None


def personal_layout(method: str, own: AdapterLayout) -> AdapterLayout:
    """What a personal adapter consists of, where the silo's federated one has the layout `own`."""
    return own.without_wholes if method == "dual" else own


def personal_job(
    federated: TrainingJob,
    section: PersonalSection,
    beside: Beside,
    previous: Path | None,
    end: datetime,
) -> TrainingJob:
    """The training of a personal adapter that goes on from `previous`, or begins anew without.

    With fewer steps where the time until `end` is too short for all of them.
    """
    is_dual = section.method == "dual"
    centre = None if is_dual else federated.starting_adapter
    free = {
        "trained_factors": "both",
        "proximal_mu": Decimal("0") if is_dual else section.pull,
        "least_steps": None,
    }
    pinned = PINNED[federated.device]
    changes = {
        "layout": personal_layout(section.method, federated.layout),
        "precision": pinned.precision,
        "base_weights": pinned.base_weights,
        "recipe": federated.recipe.model_copy(update=free),
        "starting_adapter": previous or centre,
        "starting_residual": beside.path,
        "residual_layout": beside.layout,
        "output_dir": federated.output_dir / DIRECTORY,
        "least_steps": 1,
        "end_by": end,
        "measure_base": False,
        "measure_starting": False,
        "measure_local": False,
        "silo_only": SiloOnlyBaseline(),
        "leak_check": None,
        "personal": PersonalPart(centre=centre, is_mixed=is_dual),
        # It never leaves.
        "private": None,
    }
    return federated.model_copy(update=changes)


def what_acts_beside(
    federated: TrainingJob, method: str, plan: RoundPlan, starting: GlobalAdapter
) -> Beside:
    """For `dual` the federation's adapter, with its residual in one file; for `ditto` whatever acts
    beside the federated training."""
    if method == "ditto":
        path = federated.starting_residual
        return Beside(path, federated.residual_layout if path else None)
    path = federated.output_dir / DIRECTORY / BESIDE_NAME
    if starting.path is None:
        if not plan.layout.wholes:
            return Beside(None, None)
        _write(path, InitialAdapter(plan.layout))
        return Beside(path, plan.layout)
    if starting.residual is None or plan.residual_layout is None:
        return Beside(starting.path, plan.layout)
    parts = (
        open_adapter(starting.path, plan.layout),
        open_adapter(starting.residual, plan.residual_layout),
    )
    joined_file(path, parts)
    return Beside(path, joined_layout([part.layout for part in parts]))


def _write(path: Path, adapter: AdapterSource) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_adapter(path, adapter.layout, tensors_of(adapter))
