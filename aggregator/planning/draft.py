"""From settings and the feed to the next plan. Pure: takes values, returns values.

The plan validator refuses what the federation's trust mode cannot give, before any silo sees it.
"""

from datetime import datetime, timedelta

from aggregator.planning.feasibility import (
    impossible,
    require_fits,
    require_possible,
    require_usual_numbers,
)
from aggregator.planning.inputs import PlanInputs
from aggregator.planning.masking import masking_terms
from aggregator.planning.privacy import privacy_terms
from aggregator.planning.starting_point import StartingPoint
from aggregator.settings.federation import FederationSettings, RoundSection
from data_contracts.adapters.adapter_format import adapter_bytes_limit
from data_contracts.protocol.program_version import program_version
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.adapter_layout import AdapterLayout, SiloLayout
from data_contracts.protocol.records.masking_terms import MaskingTerms
from data_contracts.protocol.records.merge_spec import MIXED_RANK_RULES
from data_contracts.protocol.records.model_family import CAUSAL_TASK
from data_contracts.protocol.records.plan_terms import (
    ContractPin,
    CountedCopy,
    PublicationRule,
    Retention,
)
from data_contracts.protocol.records.sent_layout import exchanged_layout
from data_contracts.protocol.records.training_recipe import TrainingRecipe, trained_factors


def draft_plan(
    settings: FederationSettings, inputs: PlanInputs, round_number: int, attempt: int
) -> RoundPlan:
    """The plan for one attempt; raises FederationOperatorError when it could not be kept.

    Every later record of the attempt fits where the plan does: their rows are for its silos and
    modules, and lie in tables that take more of them than a plan does.
    """
    cohort = cohort_of(inputs, round_number)
    require_possible(settings, inputs, cohort)
    membership, head, starting = inputs.membership, inputs.head, inputs.starting
    recipe = _recipe(settings, round_number, starting)
    trained, rank = recipe.trained_factors, inputs.layout.rank
    masking = masking_terms(settings, cohort, rank, trained, inputs.now)
    submit_by, evaluate_by = _deadlines(settings.round, inputs.now, masking)
    plan = RoundPlan(
        federation=settings.federation,
        issued_at=inputs.now,
        run=settings.run,
        round=round_number,
        attempt=attempt,
        feed_number=head.number + 1,
        previous_digest=head.digest,
        membership_number=membership.record.number,
        membership_digest=membership.digest,
        trust_mode=settings.trust_mode,
        purpose=settings.purpose,
        use=settings.use,
        cohort=cohort,
        contracts=_contracts(inputs, cohort),
        base_model=inputs.base_model,
        starting_adapter=starting.adapter,
        starting_residual=starting.residual,
        earlier_adapter=starting.earlier,
        server_state=starting.server_state,
        layout=inputs.layout,
        silo_layouts=_silo_layouts(settings, inputs.layout, cohort),
        recipe=recipe,
        prompt_date=inputs.prompt_date,
        task=None if settings.task.learned == CAUSAL_TASK else settings.task.learned,
        merge=settings.merge_spec,
        merge_error="exact" if settings.merge.error == "exact" else None,
        compression=settings.merge.compression,
        publication=PublicationRule(**settings.publication.model_dump()),
        retention=Retention(mode=settings.ledger.mode, days=settings.ledger.days),
        program=program_version(),
        masking=masking,
        privacy=privacy_terms(settings, recipe),
        counted_copies=_counted_copies(settings, cohort),
        encryption=inputs.encryption,
        erasure=inputs.erasure,
        max_adapter_bytes=adapter_bytes_limit(exchanged_layout(settings.merge.rule, inputs.layout)),
        quorum=settings.round.quorum if masking is None else masking.threshold,
        submit_by=submit_by,
        evaluation_quorum=settings.round.evaluation_quorum,
        evaluate_by=evaluate_by,
        expires_at=evaluate_by,
    )
    require_fits(plan)
    require_usual_numbers(plan)
    return plan


def cohort_of(inputs: PlanInputs, round_number: int) -> tuple[str, ...]:
    """The members of a round whose contract is in force, sorted."""
    members = set(inputs.membership.record.silos_of_round(round_number))
    return tuple(sorted(members & inputs.contract_digests.keys()))


def _contracts(inputs: PlanInputs, cohort: tuple[str, ...]) -> tuple[ContractPin, ...]:
    digests = inputs.contract_digests
    return tuple(ContractPin(silo=silo, contract_digest=digests[silo]) for silo in cohort)


def _counted_copies(
    settings: FederationSettings, cohort: tuple[str, ...]
) -> tuple[CountedCopy, ...] | None:
    """What was decided about silos of this cohort; None where that is nothing."""
    counted = settings.copies.counted.items()
    found = (
        CountedCopy(silo=silo, decision=why) for silo, why in sorted(counted) if silo in cohort
    )
    return tuple(found) or None


def _deadlines(
    section: RoundSection, now: datetime, masking: MaskingTerms | None
) -> tuple[datetime, datetime]:
    """For submissions and for evaluations, in the whole seconds that records count in."""
    submit_by = now + timedelta(minutes=section.submit_minutes)
    merged_by = submit_by if masking is None else masking.reveal_by
    evaluate_by = merged_by + timedelta(minutes=section.evaluate_minutes)
    return submit_by.replace(microsecond=0), evaluate_by.replace(microsecond=0)


def _recipe(
    settings: FederationSettings, round_number: int, starting: StartingPoint
) -> TrainingRecipe:
    """The recipe of a round; each round draws its data in another order."""
    is_first = starting.adapter is None
    return TrainingRecipe(
        **settings.recipe.model_dump(exclude={"seed"}),
        seed=settings.recipe.seed + round_number,
        trained_factors=trained_factors(settings.merge.rule, round_number, is_first=is_first),
    )


def _silo_layouts(
    settings: FederationSettings, layout: AdapterLayout, cohort: tuple[str, ...]
) -> tuple[SiloLayout, ...]:
    """Layouts of the silos that have their own; a silo outside this cohort is left out."""
    rule = settings.merge.rule
    if settings.silo_adapters and rule not in MIXED_RANK_RULES:
        raise impossible(
            f"a merge rule for several layouts: {' or '.join(sorted(MIXED_RANK_RULES))}",
            rule,
            "change merge.rule, or remove silo_adapters from federation.toml",
        )
    for silo, own in settings.silo_adapters.items():
        if own.rank > layout.rank:
            raise impossible(
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
    names = [target.module for target in layout.pairs]
    found = tuple(n for n in names if any(n == w or n.endswith(f".{w}") for w in wanted))
    if not found:
        raise impossible(
            f"target_modules of {silo} that are modules of the run",
            ", ".join(wanted),
            f"correct silo_adapters.{silo} in federation.toml",
        )
    return found
