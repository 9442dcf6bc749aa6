"""What each silo contributed to a round, measured at the coordinator on a public set.

Every coalition of admitted silos is merged and measured on the same public records, those of
leave-one-out first. Losses are kept under the digests of what they were made of, so a computation
that was stopped goes on where it was; adapters are kept for one batch of coalitions only.

No silo takes part: a coalition of one silo is that silo's own adapter, which only an owner may let
others see. The coordinator has seen it already; in auditable mode that is what silos agreed to.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from aggregator.contribution.closed_round import ClosedRound, closed_round
from aggregator.contribution.coalition_merge import merge_coalitions
from aggregator.contribution.coalitions import Coalition
from aggregator.contribution.plan import (
    LossJournal,
    Method,
    OnMeasured,
    contribution_plan,
    measured,
)
from aggregator.contribution.result import Contributions, contributions_of, write_contributions
from aggregator.contribution.values import SequenceLosses
from aggregator.coordinator import Coordinator
from aggregator.upkeep.disk_pruning import prune_opened, workspace_in_use
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import artifact_of_file, digest_of_bytes
from data_contracts.protocol.records import RoundPlan
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet
from silo_agent.training.processes.launch import run_evaluation
from silo_agent.training.results import HeldoutLoss

PUBLIC = "public"


@dataclass(frozen=True)
class PublicSet:
    """JSONL records of one form, such as `prompt` and `answer`, and how many packed sequences of
    it to use."""

    records: Path
    sequences: int = 64


def contributions(
    c: Coordinator,
    round_number: int,
    public: PublicSet,
    *,
    exact: bool,
    on_measured: OnMeasured | None = None,
) -> Contributions:
    """Exact Shapley values, or leave-one-out with one merge a silo; written beside the reports.

    `on_measured` gets how many coalitions are measured and how many there are. Raises
    FederationOperatorError when the round was not closed or has too many silos.
    """
    closed = closed_round(c, round_number)
    _require_whole_adapters(closed.plan.record)
    method: Method = "shapley" if exact else "leave-one-out"
    wanted = contribution_plan(closed.silos, method, _bound_to(closed, public))
    directory = c.contributions_to(closed.plan.digest)
    measure = partial(_measured, c, closed, public, directory)
    journal = LossJournal(directory / "losses", wanted)
    with workspace_in_use(c):
        losses = measured(wanted, journal, measure, on_measured)
    prune_opened(c, closed.feed)
    found = contributions_of(wanted, losses)
    write_contributions(c, round_number, found)
    return found


def _require_whole_adapters(plan: RoundPlan) -> None:
    if plan.shares_a:
        raise FederationOperatorError(
            f"contributions to round {plan.round}, measured here",
            expected="merges that a model can load",
            found="factors A alone: under the rule shared_a each silo keeps its own B",
            action=f"let the silos measure, each with its own B: `consortia round contributions "
            f"{plan.round} --by-silos`",
        )


def _bound_to(closed: ClosedRound, public: PublicSet) -> str:
    """A digest of all that decides the losses of a coalition."""
    records = artifact_of_file(public.records).digest
    decisive = [closed.plan.digest, closed.close.digest, records, public.sequences]
    return digest_of_bytes(json.dumps(decisive).encode())


def _measured(
    c: Coordinator,
    closed: ClosedRound,
    public: PublicSet,
    directory: Path,
    batch: Sequence[Coalition],
) -> dict[Coalition, SequenceLosses]:
    """Merge and measure a few coalitions; their adapters are removed when the losses are known."""
    plan, adapters = closed.plan.record, directory / "adapters"
    merged = merge_coalitions(c, plan, closed.close.record, batch, adapters)
    job = EvaluationJob(
        model_dir=c.settings.path(c.settings.base_model.path),
        task=plan.learned,
        layout=plan.layout,
        residual_layout=plan.residual_layout,
        adapters=tuple(
            EvaluatedAdapter(name=files.name, path=files.adapter, residual=files.residual)
            for files in merged.values()
        ),
        heldout=(HeldoutSet(name=PUBLIC, records=public.records),),
        sequence_length=plan.recipe.sequence_length,
        prompt_date=plan.day,
        heldout_sequences=public.sequences,
        output_dir=directory / "evaluation",
        per_sequence=True,
    )
    result = run_evaluation(job)
    shutil.rmtree(adapters, ignore_errors=True)
    return {
        coalition: _per_sequence(result.loss(files.name, PUBLIC))
        for coalition, files in merged.items()
    }


def _per_sequence(loss: HeldoutLoss) -> SequenceLosses:
    pairs = np.array(loss.sequences, dtype=np.float64)
    return SequenceLosses(nats=pairs[:, 0], tokens=pairs[:, 1])
