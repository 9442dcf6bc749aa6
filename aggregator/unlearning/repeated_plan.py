"""The plan of an earlier round once more, without the silo that was taken out. Pure.

What decides the bytes of a merge is taken from the old plan as it stands: number of the round,
recipe with its seed, layouts, merge, compression, publication. Settings that changed since play no
part. New are what belongs to the moment (members, contracts, deadlines as long as they were) and
what the round starts from. Quorums are lowered to the silos that are left, never raised.
"""

from datetime import timedelta

from pydantic import ValidationError

from aggregator.planning.feasibility import impossible, require_fits, require_usual_numbers
from aggregator.planning.inputs import PlanInputs
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.program_version import program_version
from data_contracts.protocol.records import Erasure, RoundPlan
from data_contracts.protocol.records.masking_terms import MaskingTerms, least_threshold
from data_contracts.protocol.records.plan_terms import ContractPin, ReplayOf
from data_contracts.protocol.records.training_recipe import TrainingRecipe, trained_factors


def cohort_again(old: RoundPlan, erasure: Erasure, inputs: PlanInputs) -> tuple[str, ...]:
    """The cohort of then, as far as it is a member, without the silo that was taken out.

    Raises FederationOperatorError where one of it has no contract in force: without its part the
    round would be another one.
    """
    members = set(inputs.membership.record.silos_of_round(old.round))
    cohort = sorted((set(old.cohort) - {erasure.silo}) & members)
    lacking = [silo for silo in cohort if silo not in inputs.contract_digests]
    if lacking or not cohort:
        raise impossible(
            f"a contract in force with each that was asked in round {old.round} and is a member",
            f"none with {', '.join(lacking) or 'anybody'}",
            "have them signed with `consortia contract sign`; a silo that left is removed with "
            "`consortia federation remove-silo`",
        )
    return tuple(cohort)


def repeated_plan_of(
    old: Verified[RoundPlan],
    erasure: Verified[Erasure],
    inputs: PlanInputs,
    attempt: int,
) -> RoundPlan:
    """The draft; raises FederationOperatorError where it could not be kept."""
    record, before = erasure.record, old.record
    cohort = cohort_again(before, record, inputs)
    _require_model(before, inputs)
    later = inputs.now - before.issued_at
    membership, head, starting = inputs.membership, inputs.head, inputs.starting
    changes = {
        "issued_at": inputs.now,
        "run": record.replay_run,
        "attempt": attempt,
        "feed_number": head.number + 1,
        "previous_digest": head.digest,
        "membership_number": membership.record.number,
        "membership_digest": membership.digest,
        "cohort": cohort,
        "contracts": tuple(
            ContractPin(silo=silo, contract_digest=inputs.contract_digests[silo]) for silo in cohort
        ),
        "base_model": inputs.base_model,
        "starting_adapter": starting.adapter,
        "starting_residual": starting.residual,
        "earlier_adapter": starting.earlier,
        "server_state": starting.server_state,
        "silo_layouts": tuple(own for own in before.silo_layouts if own.silo in cohort),
        "recipe": _recipe(before, record.seed_offset, is_first=starting.adapter is None),
        "masking": _masking(before.masking, len(cohort), later),
        "counted_copies": tuple(e for e in before.counted_copies or () if e.silo in cohort) or None,
        "encryption": inputs.encryption,
        "quorum": min(before.quorum, len(cohort)),
        "evaluation_quorum": min(before.evaluation_quorum, len(cohort)),
        "submit_by": before.submit_by + later,
        "evaluate_by": before.evaluate_by + later,
        "expires_at": before.expires_at + later,
        "program": program_version(),
        "erasure": inputs.erasure,
        "replay": ReplayOf(erasure_digest=erasure.digest, plan_digest=old.digest),
    }
    plan = _consistent({**dict(before), **changes})
    require_fits(plan)
    require_usual_numbers(plan)
    return plan


def _recipe(before: RoundPlan, seed_offset: int, *, is_first: bool) -> TrainingRecipe:
    """Which factors are trained follows from what has been published, which may be less than then:
    a round that was published may be held without the silo."""
    trained = trained_factors(before.merge.rule, before.round, is_first=is_first)
    changes = {"seed": before.recipe.seed + seed_offset, "trained_factors": trained}
    return before.recipe.model_copy(update=changes)


def _masking(terms: MaskingTerms | None, silos: int, later: timedelta) -> MaskingTerms | None:
    if terms is None:
        return None
    return terms.model_copy(
        update={
            "threshold": max(least_threshold(silos), min(terms.threshold, silos)),
            "keys_by": terms.keys_by + later,
            "shares_by": terms.shares_by + later,
            "reveal_by": terms.reveal_by + later,
        }
    )


def _require_model(before: RoundPlan, inputs: PlanInputs) -> None:
    if before.base_model.digest != inputs.base_model.digest:
        raise impossible(
            f"the base model of round {before.round}, {before.base_model.digest[:12]}",
            inputs.base_model.digest[:12],
            "put that model back in federation.toml until the replay is through",
        )


def _consistent(fields: dict[str, object]) -> RoundPlan:
    try:
        return RoundPlan.model_validate(fields)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise FederationOperatorError(
            f"round {fields['round']} once more",
            expected="a plan that can be kept with the silos that are left",
            found=found[:200],
            action="begin a new run without the silo instead",
        ) from None
