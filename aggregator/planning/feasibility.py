"""What no plan can be made of: settings that contradict each other, the run, or its silos.

Whoever plans is told before any silo sees a plan; each refusal says what to change.
"""

from aggregator.planning.inputs import PlanInputs
from aggregator.planning.starting_point import StartingPoint
from aggregator.settings.federation import FederationSettings
from data_contracts.errors import FederationOperatorError
from data_contracts.licences.model_licence import judge_model
from data_contracts.protocol.payload import canonical_bytes
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.model_family import FamilyTask
from data_contracts.protocol.records.plan_bounds import outside_bounds
from data_contracts.protocol.records.round_plan import MAX_COHORT
from data_contracts.protocol.records.training_recipe import LEAST_STEPS_TO_SHARE_A


def require_possible(
    settings: FederationSettings, inputs: PlanInputs, cohort: tuple[str, ...]
) -> None:
    """Raise FederationOperatorError for the first thing that no plan can have."""
    _require_licence(settings, inputs.base_model)
    _require_same_task(settings, inputs.task_so_far)
    if not cohort:
        raise impossible(
            "a cohort of members with a contract each",
            "no member of this round with a contract",
            "add silos with `consortia federation add-silo`",
        )
    _require_defence(settings)
    _require_steps(settings)
    _require_whole_cores(settings)
    _require_same_run(settings, inputs.starting)
    _require_size(settings, len(cohort))


def _require_licence(settings: FederationSettings, model: BaseModelRef) -> None:
    judged = judge_model(model.licence, settings.use, model.licence_acceptance)
    if not judged.allowed:
        raise impossible(
            f"a base model whose licence permits {settings.use} use",
            f"{model.licence}: {judged.reason} ({judged.rule})",
            "name who accepted its terms in base_model.licence_acceptance, or choose another model",
        )


def _require_same_task(settings: FederationSettings, before: FamilyTask | None) -> None:
    """A run learns one thing: its layout and its head are made for that."""
    learned = settings.task.learned
    if before is not None and learned != before:
        raise impossible(
            f"the task with which this run began: {_words(before)}",
            _words(learned),
            "put [task] back in federation.toml, or begin a new run",
        )


def _words(task: FamilyTask) -> str:
    return f"{task.family} of {', '.join(task.classes)}" if task.classes else task.family


def _require_size(settings: FederationSettings, silos: int) -> None:
    """Enough silos for the quorums, and no more than one plan can name."""
    most = max(settings.round.quorum, settings.round.evaluation_quorum)
    if most > silos:
        raise impossible(
            f"a quorum of at most {silos}, the size of the cohort",
            str(most),
            "lower the quorum in federation.toml or add silos",
        )
    if silos > MAX_COHORT:
        raise impossible(
            f"a cohort of at most {MAX_COHORT} silos",
            f"{silos}",
            "let some join later: `consortia federation add-silo --from-round N`",
        )


def _require_defence(settings: FederationSettings) -> None:
    """A defence needs its silos in every round that is merged, so the quorum has to say so."""
    robust = settings.merge_spec.robust
    if robust is None:
        return
    if settings.round.quorum < robust.silos_needed:
        raise impossible(
            f"a quorum of at least {robust.silos_needed} silos for the rule {robust.rule} that "
            f"tolerates {robust.tolerated_silos}",
            str(settings.round.quorum),
            "raise round.quorum, or set merge.robust to clip = median_norm, mixing = none, rule = "
            "mean, which works from 3 silos and asks a person when it sees an outlier",
        )
    if settings.silo_adapters:
        raise impossible(
            "one layout for all silos, so that a defence can compare their deltas",
            f"own layouts of {', '.join(sorted(settings.silo_adapters))}",
            "remove silo_adapters or merge.robust from federation.toml",
        )


def _require_steps(settings: FederationSettings) -> None:
    """Of a silo that has no B yet one step leaves A as it was, and there is nothing to send."""
    recipe = settings.recipe
    fewest = recipe.local_steps if recipe.least_steps is None else recipe.least_steps
    if settings.merge.rule == "shared_a" and fewest < LEAST_STEPS_TO_SHARE_A:
        raise impossible(
            f"at least {LEAST_STEPS_TO_SHARE_A} steps under the rule shared_a, in which a silo "
            "without a B of its own moves A from the second step on",
            str(fewest),
            "raise recipe.local_steps (and recipe.least_steps) in federation.toml",
        )


def _require_whole_cores(settings: FederationSettings) -> None:
    """What is carried of a rounding error is between the bases of one round, and the next one has
    others."""
    merge = settings.merge
    if merge.rule == "fed_sb" and merge.compression != "none":
        raise impossible(
            'compression = "none" under the rule fed_sb, whose cores are a few hundredths of an '
            "adapter",
            merge.compression,
            "remove merge.compression from federation.toml, or choose another rule",
        )


def _require_same_run(settings: FederationSettings, starting: StartingPoint) -> None:
    """What a run has published so far must fit the merge that follows."""
    merge, before = settings.merge_spec, starting.merge
    if before is None:
        return
    if (merge.rule == "shared_a") != (before.rule == "shared_a"):
        raise impossible(
            f"the rule {before.rule}, as this run began",
            merge.rule,
            "put merge.rule back in federation.toml, or begin a new run: under shared_a a run "
            "starts from factors A alone, under every other rule from whole adapters",
        )
    if starting.residual is not None and merge.residual_rank != before.residual_rank:
        raise impossible(
            f"the rule residual with residual_rank {before.residual_rank}, as this run began",
            f"{merge.rule} with residual_rank {merge.residual_rank}",
            "put merge back in federation.toml, or begin a new run: the published model is the "
            "adapter together with its residual",
        )
    if starting.server_state is not None and merge.optimizer_state != before.optimizer_state:
        raise impossible(
            f"the optimizer {before.optimizer.name}, whose state this run has",
            merge.optimizer.name,
            "put merge.optimizer back in federation.toml, or begin a new run",
        )


def require_fits(plan: RoundPlan) -> None:
    """Whether the plan is small enough to be read: each silo and each module takes its bytes."""
    size, limit = len(canonical_bytes(plan)), RoundPlan.max_payload_bytes
    if size > limit:
        raise impossible(
            f"at most {limit:,} bytes",
            f"{size:,} for {len(plan.cohort)} silos, {len(plan.silo_layouts)} layouts of their "
            f"own and {len(plan.layout.targets)} modules",
            "name modules by their end in silo_adapters and adapter.target_modules, fewer of them, "
            "or fewer silos",
        )


def require_usual_numbers(plan: RoundPlan) -> None:
    """Whether silos would take its numbers for what somebody means."""
    outside = outside_bounds(plan)
    if outside is not None:
        raise impossible(
            f"{outside.field} from {outside.least} to {outside.most}",
            outside.found,
            f"correct {outside.field} in federation.toml: every silo refuses such a plan",
        )


def impossible(expected: str, found: str, action: str) -> FederationOperatorError:
    """Nobody but the federation operator can change that."""
    return FederationOperatorError("round plan", expected=expected, found=found, action=action)
