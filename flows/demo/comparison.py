"""What federation is worth: silo-only and personal adapters on everybody's data, which only a demo
can measure.

In a real federation no institution's adapter or held-out text reaches another, so nobody could
fill this table. Here one machine plays all three, and its driver may look.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from aggregator.coordinator import Coordinator
from aggregator.feed.reading import newest_attempt, read_federation, read_report
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan, RoundReport
from flows.demo.federation import HELDOUT_SEQUENCES
from flows.demo.layout import DemoPaths
from flows.demo.personal import own_adapter
from silo_agent.personal.kept import PersonalAdapter
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet
from silo_agent.training.processes.launch import run_evaluation
from silo_agent.training.results import Progress


@dataclass(frozen=True)
class Comparison:
    """Held-out losses in nats per answer token; `silo_only[trained][evaluated]` by silo, as is
    `personal`: of the published adapter with the personal one beside it, by its gate."""

    base: dict[str, float]
    published: dict[str, float]
    silo_only: dict[str, dict[str, float]]
    personal: dict[str, dict[str, float]]

    @property
    def base_mean(self) -> float:
        """Mean over the silos of the base model's loss."""
        return _mean(self.base.values())

    @property
    def published_mean(self) -> float:
        """Mean over the silos of the global adapter's loss."""
        return _mean(self.published.values())

    @property
    def silo_only_mean(self) -> float:
        """Mean over all silo-only adapters and all silos."""
        return _mean(_mean(row.values()) for row in self.silo_only.values())

    @property
    def at_home(self) -> dict[str, float]:
        """With each silo's own personal adapter."""
        return {silo: losses[silo] for silo, losses in self.personal.items()}

    @property
    def federation_pays(self) -> bool:
        """Whether the global adapter beats the base model and the silo-only adapters' mean."""
        return self.published_mean < min(self.base_mean, self.silo_only_mean)


def compare(
    c: Coordinator,
    paths: DemoPaths,
    model_dir: Path,
    on_progress: Callable[[Progress], None],
    *,
    with_own: bool = True,
) -> Comparison:
    """Base and global losses as the silos signed them; the other rows measured here.

    Raises FederationOperatorError where a personal adapter is missing.
    """
    plan, report = last_report(c, paths)
    losses = {silo.silo: silo.losses for silo in report.record.silos if silo.losses is not None}
    silos = sorted(losses)
    alone = [
        EvaluatedAdapter(name=f"only {silo}", path=_silo_only(paths, plan.record, silo))
        for silo in silos
    ]
    own = {silo: own_adapter(paths, plan.record, silo) for silo in silos if with_own}
    result = run_evaluation(
        EvaluationJob(
            model_dir=model_dir,
            layout=plan.record.layout,
            residual_layout=plan.record.layout,
            adapters=(*alone, *through_gates(own)),
            heldout=tuple(
                HeldoutSet(name=silo, records=paths.silo(silo) / "work/splits/heldout.jsonl")
                for silo in silos
            ),
            sequence_length=plan.record.recipe.sequence_length,
            prompt_date=plan.record.day,
            heldout_sequences=HELDOUT_SEQUENCES,
            output_dir=paths.home / "comparison",
        ),
        on_progress=on_progress,
    )

    def measured(prefix: str, trained: Iterable[str]) -> dict[str, dict[str, float]]:
        return {
            one: {seen: result.loss(f"{prefix} {one}", seen).nats for seen in silos}
            for one in trained
        }

    return Comparison(
        base={silo: float(entry.base) for silo, entry in losses.items()},
        published={silo: float(entry.candidate) for silo, entry in losses.items()},
        silo_only=measured("only", silos),
        personal=measured("own", own),
    )


def through_gates(own: Mapping[str, PersonalAdapter]) -> Iterator[EvaluatedAdapter]:
    """Personal adapters of silos, each beside what it was trained beside and by its gate.

    What is the same beside several is named by one file, so that it is measured once.
    """
    beside = {kept.facts.beside_digest: kept.beside for kept in own.values()}
    for silo, kept in own.items():
        yield EvaluatedAdapter(
            name=f"own {silo}",
            path=kept.trained,
            residual=beside[kept.facts.beside_digest],
            layout=kept.facts.layout,
            gate=kept.facts.measures.gate,
        )


def last_report(
    c: Coordinator, paths: DemoPaths
) -> tuple[Verified[RoundPlan], Verified[RoundReport]]:
    """The newest plan and its report, which every silo has measured."""
    feed = read_federation(c)
    newest = newest_attempt(c, feed)
    plan = newest.plan if newest is not None else None
    report = read_report(c, feed, plan) if plan is not None else None
    if plan is None or report is None or any(s.losses is None for s in report.record.silos):
        raise FederationOperatorError(
            "demo",
            expected="a round that every institution took part in and measured",
            found=_what_became_of(report.record) if report is not None else "none",
            action=f"read the logs in {paths.stack / 'logs'}, then run the demo again",
        )
    return plan, report


def _what_became_of(report: RoundReport) -> str:
    silos = (f"{silo.silo} {silo.outcome} ({silo.rule or 'no rule'})" for silo in report.silos)
    return f"round {report.round} {report.outcome}: {', '.join(silos)}"


def _silo_only(paths: DemoPaths, plan: RoundPlan, silo: str) -> Path:
    """Of the round, or where the silo dropped out before it trained in it, of the one before."""
    kept = sorted((paths.silo(silo) / "silo-only" / plan.run).glob("round-*.safetensors"))
    wanted = f"round-{plan.round:04d}.safetensors"
    return next((path for path in reversed(kept) if path.name <= wanted), Path(wanted))


def _mean(values: Iterable[float]) -> float:
    return fmean(values)
