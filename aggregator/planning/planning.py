"""From settings and the feed to the next plan. Pure: takes values, returns values.

The plan validator refuses what the federation's trust mode cannot give, before any silo sees it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from aggregator.settings import FederationSettings
from data_contracts.adapters.adapter_format import adapter_bytes_limit
from data_contracts.errors import FederationOperatorError
from data_contracts.licences.model_licence import judge_model
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.payload import canonical_bytes
from data_contracts.protocol.program_version import program_version
from data_contracts.protocol.records import Membership, RoundPlan
from data_contracts.protocol.records.merge_spec import MIXED_RANK_RULES, MergeSpec
from data_contracts.protocol.records.round_plan import (
    MAX_COHORT,
    AdapterLayout,
    BaseModelRef,
    ContractPin,
    PublicationRule,
    Retention,
    SiloLayout,
    TrainingRecipe,
    trained_factors,
)
from data_contracts.protocol.trusted_feed import FeedPosition


@dataclass(frozen=True)
class StartingPoint:
    """What a round starts from: what the last published round left; all None at first.

    `earlier` is the adapter which that round itself started from, `merge` how it was merged.
    """

    adapter: ArtifactRef | None = None
    residual: ArtifactRef | None = None
    server_state: ArtifactRef | None = None
    earlier: ArtifactRef | None = None
    merge: MergeSpec | None = None


@dataclass(frozen=True)
class PlanInputs:
    """What a plan is made of besides the settings."""

    membership: Verified[Membership]
    head: FeedPosition
    base_model: BaseModelRef
    layout: AdapterLayout
    contract_digests: dict[str, str]
    starting: StartingPoint
    now: datetime


def draft_plan(
    settings: FederationSettings, inputs: PlanInputs, round_number: int, attempt: int
) -> RoundPlan:
    """The plan for one attempt; raises FederationOperatorError when it could not be kept.

    Every later record of the attempt fits where the plan does: their rows are for its silos and
    modules, and lie in tables that take more of them than a plan does.
    """
    members = set(inputs.membership.record.silos_of_round(round_number))
    cohort = tuple(sorted(members & inputs.contract_digests.keys()))
    _require_possible(settings, inputs, cohort)
    submit_by = inputs.now + timedelta(minutes=settings.round.submit_minutes)
    evaluate_by = submit_by + timedelta(minutes=settings.round.evaluate_minutes)
    if len(cohort) > MAX_COHORT:
        raise _impossible(
            f"a cohort of at most {MAX_COHORT} silos",
            f"{len(cohort)}",
            "let some join later: `consortia federation add-silo --from-round N`",
        )
    plan = RoundPlan(
        federation=settings.federation,
        issued_at=inputs.now,
        run=settings.run,
        round=round_number,
        attempt=attempt,
        feed_number=inputs.head.number + 1,
        previous_digest=inputs.head.digest,
        membership_number=inputs.membership.record.number,
        membership_digest=inputs.membership.digest,
        trust_mode=settings.trust_mode,
        purpose=settings.purpose,
        use=settings.use,
        cohort=cohort,
        contracts=tuple(
            ContractPin(silo=silo, contract_digest=inputs.contract_digests[silo]) for silo in cohort
        ),
        base_model=inputs.base_model,
        starting_adapter=inputs.starting.adapter,
        starting_residual=inputs.starting.residual,
        earlier_adapter=inputs.starting.earlier,
        server_state=inputs.starting.server_state,
        layout=inputs.layout,
        silo_layouts=_silo_layouts(settings, inputs.layout, cohort),
        recipe=_recipe(settings, round_number, inputs.starting),
        merge=settings.merge.spec(settings.round.weight_cap_tokens),
        compression=settings.merge.compression,
        publication=PublicationRule(
            max_mean_increase=settings.publication.max_mean_increase,
            max_silo_increase=settings.publication.max_silo_increase,
            name_silos=settings.publication.name_silos,
        ),
        retention=Retention(mode=settings.ledger.mode, days=settings.ledger.days),
        program=program_version(),
        max_adapter_bytes=adapter_bytes_limit(inputs.layout),
        quorum=settings.round.quorum,
        submit_by=_whole_seconds(submit_by),
        evaluation_quorum=settings.round.evaluation_quorum,
        evaluate_by=_whole_seconds(evaluate_by),
        expires_at=_whole_seconds(evaluate_by),
    )
    _require_fits(plan)
    return plan


def _require_fits(plan: RoundPlan) -> None:
    size, limit = len(canonical_bytes(plan)), RoundPlan.max_payload_bytes
    if size > limit:
        raise _impossible(
            f"at most {limit:,} bytes",
            f"{size:,} for {len(plan.cohort)} silos, {len(plan.silo_layouts)} layouts of their "
            f"own and {len(plan.layout.targets)} modules",
            "name modules by their end in silo_adapters and adapter.target_modules, fewer of them, "
            "or fewer silos",
        )


def _recipe(
    settings: FederationSettings, round_number: int, starting: StartingPoint
) -> TrainingRecipe:
    """The recipe of a round; each round draws its data in another order."""
    recipe, is_first = settings.recipe, starting.adapter is None
    return TrainingRecipe(
        local_steps=recipe.local_steps,
        sequences_per_step=recipe.sequences_per_step,
        sequence_length=recipe.sequence_length,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        max_gradient_norm=recipe.max_gradient_norm,
        seed=recipe.seed + round_number,
        trained_factors=trained_factors(settings.merge.rule, round_number, is_first=is_first),
        proximal_mu=recipe.proximal_mu,
    )


def _silo_layouts(
    settings: FederationSettings, layout: AdapterLayout, cohort: tuple[str, ...]
) -> tuple[SiloLayout, ...]:
    """Layouts of the silos that have their own; a silo outside this cohort is left out."""
    rule = settings.merge.rule
    if settings.silo_adapters and rule not in MIXED_RANK_RULES:
        raise _impossible(
            f"a merge rule for several layouts: {' or '.join(sorted(MIXED_RANK_RULES))}",
            rule,
            "change merge.rule, or remove silo_adapters from federation.toml",
        )
    for silo, own in settings.silo_adapters.items():
        if own.rank > layout.rank:
            raise _impossible(
                f"a rank of at most {layout.rank}, that of the run, for {silo}",
                str(own.rank),
                f"lower silo_adapters.{silo}.rank, or begin a run with a higher layout.rank",
            )
    return tuple(
        SiloLayout(
            silo=silo,
            rank=own.rank,
            alpha=own.alpha,
            modules=own.target_modules and _modules(layout, own.target_modules, silo),
        )
        for silo, own in sorted(settings.silo_adapters.items())
        if silo in cohort
    )


def _modules(layout: AdapterLayout, wanted: tuple[str, ...], silo: str) -> tuple[str, ...]:
    """Modules of the run that a silo trains, named in full or by their end as PEFT takes them."""
    names = [target.module for target in layout.targets]
    found = tuple(n for n in names if any(n == w or n.endswith(f".{w}") for w in wanted))
    if not found:
        raise _impossible(
            f"target_modules of {silo} that are modules of the run",
            ", ".join(wanted),
            f"correct silo_adapters.{silo} in federation.toml",
        )
    return found


def _require_possible(
    settings: FederationSettings, inputs: PlanInputs, cohort: tuple[str, ...]
) -> None:
    if settings.trust_mode == "confidential":
        raise _impossible(
            'trust_mode = "auditable"',
            '"confidential", which this version does not have',
            "set trust_mode to auditable, or wait for masked aggregation",
        )
    licence = judge_model(
        inputs.base_model.licence, settings.use, inputs.base_model.licence_acceptance
    )
    if not licence.allowed:
        raise _impossible(
            f"a base model whose licence permits {settings.use} use",
            f"{inputs.base_model.licence}: {licence.reason} ({licence.rule})",
            "name who accepted its terms in base_model.licence_acceptance, or choose another model",
        )
    if not cohort:
        raise _impossible(
            "a cohort of members with a contract each",
            "no member of this round with a contract",
            "add silos with `consortia federation add-silo`",
        )
    _require_defence(settings)
    _require_same_run(settings, inputs.starting)
    most = max(settings.round.quorum, settings.round.evaluation_quorum)
    if most > len(cohort):
        raise _impossible(
            f"a quorum of at most {len(cohort)}, the size of the cohort",
            str(most),
            "lower the quorum in federation.toml or add silos",
        )


def _require_defence(settings: FederationSettings) -> None:
    """A defence needs its silos in every round that is merged, so the quorum has to say so."""
    robust = settings.merge.spec(settings.round.weight_cap_tokens).robust
    if robust is None:
        return
    if settings.round.quorum < robust.silos_needed:
        raise _impossible(
            f"a quorum of at least {robust.silos_needed} silos for the rule {robust.rule} that "
            f"tolerates {robust.tolerated_silos}",
            str(settings.round.quorum),
            "raise round.quorum, or set merge.robust to clip = median_norm, mixing = none, rule = "
            "mean, which works from 3 silos and asks a person when it sees an outlier",
        )
    if settings.silo_adapters:
        raise _impossible(
            "one layout for all silos, so that a defence can compare their deltas",
            f"own layouts of {', '.join(sorted(settings.silo_adapters))}",
            "remove silo_adapters or merge.robust from federation.toml",
        )


def _require_same_run(settings: FederationSettings, starting: StartingPoint) -> None:
    """What a run has published so far must fit the merge that follows."""
    merge, before = settings.merge.spec(settings.round.weight_cap_tokens), starting.merge
    if before is None:
        return
    if starting.residual is not None and merge.residual_rank != before.residual_rank:
        raise _impossible(
            f"the rule residual with residual_rank {before.residual_rank}, as this run began",
            f"{merge.rule} with residual_rank {merge.residual_rank}",
            "put merge back in federation.toml, or begin a new run: the published model is the "
            "adapter together with its residual",
        )
    if starting.server_state is not None and merge.optimizer_state != before.optimizer_state:
        raise _impossible(
            f"the optimizer {before.optimizer.name}, whose state this run has",
            merge.optimizer.name,
            "put merge.optimizer back in federation.toml, or begin a new run",
        )


def _impossible(expected: str, found: str, action: str) -> FederationOperatorError:
    return FederationOperatorError("round plan", expected=expected, found=found, action=action)


def _whole_seconds(instant: datetime) -> datetime:
    return instant.replace(microsecond=0)
