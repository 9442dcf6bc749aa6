"""A plan that could not be kept is refused before any silo sees it."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aggregator.planning.draft import draft_plan
from aggregator.planning.inputs import PlanInputs
from aggregator.planning.starting_point import StartingPoint
from aggregator.settings.federation import (
    BaseModelSection,
    CopiesSection,
    EncryptedStorageSection,
    FederationSettings,
    PrefectSection,
    RecipeSection,
    RoundSection,
    TaskSection,
)
from aggregator.settings.masking import MaskingSection
from aggregator.settings.merge import MergeSection
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.payload import canonical_bytes
from data_contracts.protocol.records import Membership, RoundPlan
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.membership import Member
from data_contracts.protocol.records.merge_spec import FedAvg, FedAvgM, HeavyBall, ServerOptimizer
from data_contracts.protocol.records.model_family import CAUSAL_TASK, FamilyTask
from data_contracts.protocol.records.sketch_width import least_sketch_width, sketch_fault
from data_contracts.protocol.records.training_recipe import trained_factors
from data_contracts.protocol.trusted_feed import FeedPosition
from tests.aggregator.federation_samples import (
    COHORT,
    START,
    adapter_ref,
    digest,
    federation,
    key,
    membership,
)

FED = federation()
GEMMA = "LicenseRef-Gemma-Terms"
ACCEPTED = f"{GEMMA} accepted by A. Person"


KRUM = {"tolerated_silos": 2, "rule": "multi_krum"}
CLIPPED = {"tolerated_silos": 1, "rule": "mean", "mixing": "none"}
MEDIAN = {"tolerated_silos": 1, "rule": "median", "clip": "none", "mixing": "none"}
CENTRED = {"tolerated_silos": 1, "rule": "centred_clipping"}
NARROW = {"bank-a": {"rank": 1, "alpha": 1}}
NAMED = {"rank": 1, "alpha": 1, "target_modules": ("q_proj",)}
ALL = tuple(target.module for target in FED.plan.record.layout.targets)
THREE = RoundSection(quorum=3, evaluation_quorum=2)


def merge(**fields: Any) -> MergeSection:
    return MergeSection.model_validate(fields)


def settings(**changes: Any) -> FederationSettings:
    fields: dict[str, Any] = {
        "federation": "oncology",
        "run": "run-one",
        "purpose": "testing",
        "storage": EncryptedStorageSection(endpoint_url="http://127.0.0.1:1"),
        "prefect": PrefectSection(api_url="http://127.0.0.1:1/api"),
        "base_model": BaseModelSection(name="tiny", licence="Apache-2.0", path=Path("model")),
        "recipe": RecipeSection(
            local_steps=2, sequences_per_step=2, sequence_length=32, learning_rate=Decimal("0.001")
        ),
        "round": RoundSection(quorum=2, evaluation_quorum=2),
        "home": Path("/operator"),
    }
    return FederationSettings(**fields | changes)


def membership_of(silos: tuple[str, ...]) -> Verified[Membership]:
    members = tuple(Member(silo=silo, public_key=key(silo).public_key_hex) for silo in silos)
    return membership(silos=members)


def drafted(
    use: str = "research",
    licence: str = "Apache-2.0",
    acceptance: str | None = None,
    silos: tuple[str, ...] = COHORT,
    starting: StartingPoint | None = None,
    members: tuple[str, ...] = COHORT,
    targets: tuple[AdapterTarget, ...] | None = None,
    task_so_far: FamilyTask | None = None,
    **changes: Any,
) -> RoundPlan:
    model = BaseModelRef(
        name="tiny", digest=digest("base"), licence=licence, licence_acceptance=acceptance
    )
    inputs = PlanInputs(
        membership=FED.membership if members == COHORT else membership_of(members),
        head=FeedPosition(),
        base_model=model,
        layout=FED.plan.record.layout.model_copy(
            update={} if targets is None else {"targets": targets}
        ),
        contract_digests={silo: digest(f"contract of {silo}") for silo in silos},
        starting=starting or StartingPoint(),
        prompt_date="2026-03-01",
        now=START,
        task_so_far=task_so_far,
    )
    return draft_plan(settings(use=use, **changes), inputs, 1, 1)


@pytest.mark.parametrize(
    ("use", "licence", "acceptance"),
    [
        ("research", "Apache-2.0", None),
        ("commercial", "Apache-2.0", None),
        ("research", "CC-BY-NC-4.0", None),
        ("research", GEMMA, ACCEPTED),
        ("commercial", GEMMA, f"LicenseRef-OpenRAIL-M accepted by B. Person; {ACCEPTED}"),
    ],
)
def test_a_plan_says_its_use_and_who_accepted_the_model_s_terms(
    use: str, licence: str, acceptance: str | None
) -> None:
    plan = drafted(use, licence, acceptance)
    base = plan.base_model
    assert (plan.use, base.licence, base.licence_acceptance) == (use, licence, acceptance)
    assert [pin.silo for pin in plan.contracts] == list(plan.cohort) == sorted(COHORT)


@pytest.mark.parametrize(
    ("use", "licence", "acceptance", "rule"),
    [
        ("research", GEMMA, None, "conditional"),
        ("research", GEMMA, "A. Person", "conditional"),
        ("research", GEMMA, f"{GEMMA} accepted by ", "conditional"),
        ("research", GEMMA, "LicenseRef-OpenRAIL-M accepted by A. Person", "conditional"),
        ("commercial", "CC-BY-NC-4.0", None, "non_commercial"),
        ("research", "CC-BY-ND-4.0", None, "no_derivatives"),
        ("research", "LicenseRef-Unheard-Of", ACCEPTED, "unknown"),
    ],
)
def test_a_model_whose_licence_does_not_permit_the_use_is_not_planned_with(
    use: str, licence: str, acceptance: str | None, rule: str
) -> None:
    with pytest.raises(FederationOperatorError, match=rf"\(model_licence\.{rule}\)") as told:
        drafted(use, licence, acceptance)
    assert told.value.expected == f"a base model whose licence permits {use} use"
    assert "base_model.licence_acceptance" in told.value.action


def test_research_is_the_use_of_a_federation_that_states_none() -> None:
    assert settings().use == "research"


@pytest.mark.parametrize(
    ("section", "optimizer"),
    [
        (merge(), HeavyBall()),
        (merge(robust={"tolerated_silos": 1}), HeavyBall()),
        (merge(optimizer={"name": "heavy_ball"}), HeavyBall(momentum=Decimal("0.3"))),
        (merge(optimizer={"name": "fedavg"}), FedAvg()),
        (merge(rule="average"), FedAvg()),
        (merge(robust=CENTRED), FedAvg()),
    ],
)
def test_the_optimizer_of_a_merge_that_names_none(
    section: MergeSection, optimizer: ServerOptimizer
) -> None:
    assert section.spec(10).optimizer == optimizer


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"silos": ()}, "no member of this round with a contract"),
        ({"silos": ("bank-z",)}, "no member of this round with a contract"),
        ({"silos": COHORT[:1]}, "a quorum of at most 1"),
        ({"merge": merge(robust={"tolerated_silos": 1})}, "a quorum of at least 5 silos"),
        ({"merge": merge(robust=KRUM)}, "a quorum of at least 7 silos for the rule multi_krum"),
        ({"merge": merge(robust=CLIPPED)}, "a quorum of at least 3 silos for the rule mean"),
        ({"merge": merge(rule="residual")}, "residual_rank goes with the rule residual"),
        ({"merge": merge(residual_rank=4)}, "residual_rank goes with the rule residual"),
        ({"merge": merge(robust=MEDIAN)}, "needs a rule under which a factor is shared"),
        ({"merge": merge(rule="average", optimizer={"name": "diloco"})}, "needs stack_truncate"),
        ({"merge": merge(optimizer={"name": "fedavg", "tau": "0.1"})}, "not permitted"),
        ({"merge": merge(optimizer={"name": "diloco", "momentum": "0"})}, "greater than 0"),
        ({"merge": merge(optimizer={"name": "fedavg", "learning_rate": "-1"})}, "greater than 0"),
        ({"merge": merge(optimizer={"name": "fedadam", "beta2": "1.5"})}, "less than 1"),
        ({"merge": merge(optimizer={"name": "diloco"}, robust=CENTRED)}, "needs fedavg at rate 1"),
        (
            {"merge": merge(robust=CLIPPED), "silo_adapters": NARROW, "round": THREE},
            "one layout for all silos",
        ),
        ({"merge": merge(rule="fedsvd"), "silo_adapters": NARROW}, "zero_pad; found fedsvd"),
        ({"merge": merge(rule="fed_sb"), "silo_adapters": NARROW}, "zero_pad; found fed_sb"),
        ({"merge": merge(rule="fed_sb", compression="int8")}, '"none" under the rule fed_sb'),
        ({"merge": merge(rule="fed_sb", residual_rank=4)}, "residual_rank goes with the rule"),
        ({"merge": merge(rule="fed_sb", robust=MEDIAN)}, "under which a factor is shared"),
        ({"merge": merge(rule="fed_sb", rank_weights="trained")}, "they need stack_truncate"),
        ({"silo_adapters": {"bank-a": {"rank": 64, "alpha": 1}}}, "a rank of at most"),
        (
            {"silo_adapters": {"bank-a": {"rank": 1, "alpha": 1, "target_modules": ("x_proj",)}}},
            "modules of the run; found x_proj",
        ),
    ],
)
def test_what_the_federation_cannot_keep_is_not_planned(
    changes: dict[str, Any], found: str
) -> None:
    with pytest.raises(FederationOperatorError, match=found):
        drafted(**changes)


def test_a_silo_names_modules_and_trains_every_whole_tensor_with_them() -> None:
    fields = {"module": "classifier.q_proj", "in_features": 8, "out_features": 2}
    head = AdapterTarget.model_validate(fields | {"whole": "matrix", "initial": "normal"})
    targets = (*FED.plan.record.layout.targets, head)
    named = {"bank-a": {"rank": 1, "alpha": 1, "target_modules": ("q_proj",)}}
    plan = drafted(targets=targets, silo_adapters=named, merge=merge(rule="stack_truncate"))
    (own,) = plan.silo_layouts
    assert head.module not in (own.modules or ())
    assert head in plan.layout_of("bank-a").targets
    only = {"bank-a": {"rank": 1, "alpha": 1, "target_modules": ("classifier.q_proj",)}}
    with pytest.raises(FederationOperatorError, match="modules of the run"):
        drafted(targets=targets, silo_adapters=only, merge=merge(rule="stack_truncate"))


MASKED: dict[str, Any] = {
    "trust_mode": "confidential",
    "round": RoundSection(quorum=2, evaluation_quorum=2, submit_minutes=300),
}
SKETCH = {"rule": "sketch", "compression": "none"}
RANK = FED.plan.record.layout.rank


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"merge": merge(**SKETCH, sketch_width=7)}, "least 8, with which a merge is exact.*7"),
        (
            {"merge": merge(**SKETCH, sketch_width=6), "silo_adapters": NARROW},
            "at least 7, .*start together are 7, the run's rank is 2.; found 6",
        ),
        (
            {"merge": merge(**SKETCH), "silo_adapters": {"bank-a": NAMED}},
            "the same modules at all silos.*target_modules",
        ),
        (
            {"merge": merge(rule="stack_truncate", compression="none")},
            "linear in what silos send.*found stack_truncate",
        ),
        ({"merge": merge(rule="sketch", compression="int8")}, 'compression = "none"'),
    ],
)
def test_what_masks_or_sketches_cannot_keep_is_not_planned(
    changes: dict[str, Any], found: str
) -> None:
    with pytest.raises(FederationOperatorError, match=found):
        drafted(**MASKED | changes)


def test_the_width_of_a_sketch_is_the_least_or_what_was_asked_for() -> None:
    plan = drafted(**MASKED, merge=merge(**SKETCH))
    assert (plan.merge.sketch_width, plan.sketch_width) == (None, (len(COHORT) + 1) * RANK)
    assert "sketch_width" not in plan.merge.model_dump()
    plan = drafted(**MASKED, merge=merge(**SKETCH, sketch_width=40), silo_adapters=NARROW)
    assert plan.sketch_width == 40
    assert plan.layout_of("bank-a").rank == 1
    assert least_sketch_width(16, [16] * 10) == 11 * 16
    assert least_sketch_width(16, [16] * 50) == 12 * 16
    assert "within a tenth of the best" in str(sketch_fault(191, 16, [16] * 50))
    assert sketch_fault(192, 16, [16] * 50) is None


@pytest.mark.parametrize(
    ("given", "rule", "optimizer"),
    [
        ({}, "average", HeavyBall()),
        ({"rule": "average"}, "average", HeavyBall()),
        ({"optimizer": {"name": "fedavg"}}, "average", FedAvg()),
        ({"rule": "fedsvd"}, "fedsvd", FedAvg()),
        ({"rule": "shared_a"}, "shared_a", FedAvg()),
        ({"rule": "fed_sb"}, "fed_sb", HeavyBall()),
        ({"rule": "sketch"}, "sketch", HeavyBall()),
        ({"rule": "sketch", "optimizer": {"name": "fedavgm"}}, "sketch", FedAvgM()),
    ],
)
def test_the_merge_of_confidential_mode_as_far_as_it_is_not_set(
    given: dict[str, Any], rule: str, optimizer: ServerOptimizer
) -> None:
    plan = drafted(**MASKED, merge=given)
    assert (plan.merge.rule, plan.merge.optimizer) == (rule, optimizer)
    assert plan.compression == "none"


def test_a_sketch_is_for_confidential_mode_alone() -> None:
    with pytest.raises(FederationOperatorError, match=r"stack_truncate in auditable mode.*sketch"):
        drafted(merge=merge(**SKETCH))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"merge": {"sketch_width": 3}}, "a sketch_width of at least 8"),
        (
            {"silo_layouts": ({"silo": "bank-a", "rank": 1, "alpha": 1, "modules": ALL},)},
            "same mod",
        ),
        ({"trust_mode": "auditable", "masking": None}, "stack_truncate of what masks hide"),
        ({"compression": "int8"}, "not compressed"),
    ],
)
def test_a_silo_takes_no_sketched_plan_that_its_own_checks_refuse(
    changes: dict[str, Any], said: str
) -> None:
    """Whatever a coordinator signs."""
    plan = drafted(**MASKED, merge=merge(**SKETCH)).model_dump()
    assert RoundPlan.model_validate(plan).is_sketched
    if "merge" in changes:
        changes = {"merge": plan["merge"] | changes["merge"]}
    with pytest.raises(ValidationError, match=said):
        RoundPlan.model_validate(plan | changes)


def test_a_plan_says_what_its_rule_trains_and_where_the_round_starts() -> None:
    plan = drafted(merge=merge(rule="alternating", compression="int8"))
    assert plan.recipe.trained_factors == "b"
    assert (plan.merge.rule, plan.compression) == ("alternating", "int8")
    defended = drafted(
        merge=merge(robust=CLIPPED), round=RoundSection(quorum=3, evaluation_quorum=2)
    )
    assert defended.merge.robust is not None
    assert defended.merge.robust.clip == "median_norm"
    layouts = drafted(silo_adapters={"bank-a": {"rank": 1, "alpha": 3}})
    assert layouts.layout_of("bank-a").scaling == 3
    assert layouts.layout_of("bank-b") == layouts.layout


def test_cores_are_sent_once_there_is_an_adapter_to_take_bases_from() -> None:
    plan = drafted(merge=merge(rule="fed_sb"))
    assert (plan.recipe.trained_factors, plan.submitted) == ("both", plan.layout)
    assert plan.compression == "none"
    assert trained_factors("fed_sb", 2, is_first=True) == "both"
    assert trained_factors("fed_sb", 2, is_first=False) == "core"


def test_a_contract_of_a_silo_that_is_no_member_plans_nothing() -> None:
    assert drafted(silos=(*COHORT, "bank-z")).cohort == tuple(sorted(COHORT))


def test_alternating_trains_b_until_something_was_published() -> None:
    """Before that B is zero, and with it the gradient of A."""
    assert trained_factors("alternating", 2, is_first=True) == "b"
    assert trained_factors("alternating", 2, is_first=False) == "a"
    assert trained_factors("alternating", 3, is_first=False) == "b"


REF = adapter_ref("published")
RESIDUAL = merge(rule="residual", residual_rank=4)
MOMENTUM = merge(optimizer={"name": "fedavgm"})


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        (RESIDUAL, RESIDUAL, None),
        (RESIDUAL, merge(rule="average"), "residual_rank 4, as this run began"),
        (RESIDUAL, merge(rule="residual", residual_rank=2), "residual_rank 4, as this run began"),
        (MOMENTUM, merge(optimizer={"name": "diloco"}), None),
        (MOMENTUM, merge(), "the optimizer fedavgm, whose state this run has"),
        (MOMENTUM, merge(optimizer={"name": "fedadam"}), "the optimizer fedavgm"),
        (merge(), MOMENTUM, None),
        (merge(rule="average"), RESIDUAL, None),
    ],
)
def test_settings_that_change_in_a_run_must_fit_what_it_published(
    before: MergeSection, after: MergeSection, refused: str | None
) -> None:
    spec = before.spec(100)
    starting = StartingPoint(
        adapter=REF,
        residual=REF if spec.residual_rank else None,
        server_state=REF if spec.optimizer_state else None,
        merge=spec,
    )
    if refused is None:
        assert drafted(merge=after, starting=starting).merge == after.spec(10_000_000)
        return
    with pytest.raises(FederationOperatorError, match=refused):
        drafted(merge=after, starting=starting)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("warmup_steps", 3),
        ("weight_decay", Decimal("1.5")),
        ("max_gradient_norm", Decimal(10) ** 7),
        ("proximal_mu", Decimal(1001)),
        ("learning_rate", Decimal(2)),
        ("least_steps", 3),
    ],
)
def test_numbers_that_every_silo_refuses_are_no_plan(field: str, value: Any) -> None:
    recipe = settings().recipe.model_copy(update={field: value})
    with pytest.raises(FederationOperatorError, match=rf"recipe\.{field} from .* to ") as caught:
        drafted(recipe=recipe)
    assert f"correct recipe.{field}" in str(caught.value)


def test_steps_that_silos_may_leave_out_are_in_the_plan_only_where_they_are_asked_for() -> None:
    plain, asked = (
        drafted(),
        drafted(recipe=settings().recipe.model_copy(update={"least_steps": 1})),
    )
    assert b"least_steps" not in canonical_bytes(plain)
    assert (asked.recipe.least_steps, asked.recipe.fewest_steps) == (1, 1)
    assert plain.recipe.fewest_steps == plain.recipe.local_steps == 2


def test_a_warm_up_ends_for_the_silo_that_does_least() -> None:
    """Else what it trains would be trained at rates that the plan never reaches."""
    recipe = settings().recipe.model_copy(update={"warmup_steps": 2})
    assert drafted(recipe=recipe).recipe.warmup_steps == 2
    with pytest.raises(FederationOperatorError, match=r"recipe\.warmup_steps from 0 to 1"):
        drafted(recipe=recipe.model_copy(update={"least_steps": 1}))


def test_the_date_of_a_template_is_the_one_that_the_run_began_with() -> None:
    assert drafted().prompt_date == drafted().day == "2026-03-01"
    before = drafted().model_copy(update={"prompt_date": None})
    later = before.model_copy(update={"issued_at": before.issued_at + timedelta(days=1)})
    assert before.day == later.day, "what names no date is measured once"


CLASSIFYING = FamilyTask(family="sequence-classification", classes=("a", "b"))


def test_a_plan_names_its_task_only_where_it_is_another_than_ever() -> None:
    assert drafted().task is None and b'"task"' not in canonical_bytes(drafted())
    assert drafted(task=TaskSection(family="causal-lm")).task is None
    section = TaskSection(family="sequence-classification", classes=("a", "b"))
    plan = drafted(task=section)
    assert plan.task == plan.learned == CLASSIFYING


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        (CAUSAL_TASK, CLASSIFYING, "sequence-classification of a, b"),
        (CLASSIFYING, CAUSAL_TASK, "causal-lm"),
        (CLASSIFYING, CLASSIFYING.model_copy(update={"classes": ("b", "a")}), "of b, a"),
    ],
)
def test_a_run_learns_one_thing(before: FamilyTask, now: FamilyTask, found: str) -> None:
    section = TaskSection(family=now.family, classes=now.classes)
    with pytest.raises(FederationOperatorError) as caught:
        drafted(task=section, task_so_far=before)
    assert "expected the task with which this run began" in str(caught.value)
    assert found in str(caught.value)
    same = TaskSection(family=before.family, classes=before.classes)
    assert drafted(task=same, task_so_far=before).learned == before


@pytest.mark.parametrize(
    "section",
    [
        {"family": "sequence-classification"},
        {"family": "masked-lm", "classes": ["a", "b"]},
        {"family": "sequence-classification", "classes": ["a"]},
        {"family": "sequence-classification", "classes": ["a", "a"]},
        {"family": "bert"},
    ],
)
def test_a_task_that_is_none_is_refused_when_settings_are_read(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TaskSection.model_validate(section)


FIVE = tuple(f"bank-{letter}" for letter in "abcde")
MANY = tuple(f"bank-{number}" for number in range(51))
OF_FIVE: dict[str, Any] = {"trust_mode": "confidential", "silos": FIVE, "members": FIVE}


def test_a_confidential_plan_sums_more_than_two_thirds_and_leaves_time_for_training() -> None:
    plan = drafted(**OF_FIVE)
    terms = plan.masking
    assert terms is not None
    assert (plan.trust_mode, plan.merge.rule, plan.compression) == (
        "confidential",
        "average",
        "none",
    )
    assert terms.threshold == plan.quorum == 4
    assert START < terms.keys_by < terms.shares_by < plan.submit_by < terms.reveal_by
    assert plan.submit_by - terms.shares_by > (plan.submit_by - START) / 2
    assert terms.reveal_by < plan.evaluate_by


@pytest.mark.parametrize(
    ("silos", "quorum", "asked", "threshold"),
    [
        (3, 2, None, 3),
        (4, 2, None, 3),
        (5, 5, None, 5),
        (6, 2, 6, 6),
        (7, 6, 5, 6),
        (50, 2, None, 34),
    ],
)
def test_the_threshold_is_the_larger_of_what_is_asked(
    silos: int, quorum: int, asked: int | None, threshold: int
) -> None:
    names = MANY[:silos]
    round_ = RoundSection(quorum=quorum, evaluation_quorum=2)
    fields = {"masking": MaskingSection(threshold=asked), "round": round_}
    plan = drafted(**OF_FIVE | {"silos": names, "members": names} | fields)
    assert plan.masking is not None
    assert plan.masking.threshold == plan.quorum == threshold


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"silos": FIVE[:2]}, "at least 3 silos in confidential mode.*; found 2"),
        ({"silos": MANY, "members": MANY}, "at most 50 silos.*; found 51"),
        ({"masking": MaskingSection(threshold=3)}, "a threshold from 4.*; found 3"),
        ({"masking": MaskingSection(threshold=6)}, "to 5, in confidential mode; found 6"),
        ({"round": RoundSection(quorum=6, evaluation_quorum=2)}, "found 6"),
        ({"merge": merge(rule="stack_truncate")}, "linear in what silos send.*stack_truncate"),
        ({"merge": merge(rule="residual", residual_rank=4)}, "linear.*residual"),
        (
            {
                "merge": merge(rule="frozen_a", robust=MEDIAN),
                "round": RoundSection(quorum=5, evaluation_quorum=2),
            },
            "no defence.*median",
        ),
        ({"merge": merge(rule="shared_a", optimizer={"name": "fedexp"})}, "fedexp"),
        ({"merge": merge(compression="int4")}, "int32.*int4"),
        ({"merge": merge(error="exact")}, "no error of the merge"),
        ({"copies": CopiesSection(counted={"bank-a": "Seen by A. Person."})}, "no counted copies"),
        (
            {"masking": MaskingSection(key_minutes=500, share_minutes=300)},
            "submit_minutes above.*720 and 800",
        ),
    ],
)
def test_what_masks_cannot_give_is_not_planned(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(FederationOperatorError, match=found):
        drafted(**OF_FIVE | changes)


def test_masking_is_of_confidential_mode_alone() -> None:
    with pytest.raises(ValidationError, match="masking goes with trust_mode"):
        settings(masking=MaskingSection())


@pytest.mark.parametrize(
    "changes",
    [
        {"masking": None},
        {"trust_mode": "auditable"},
        {"quorum": 3},
        {"compression": "int8"},
        {"merge_error": "exact"},
        {"cohort": FIVE[:3], "contracts": ()},
    ],
)
def test_no_record_promises_what_masks_cannot_give(changes: dict[str, Any]) -> None:
    """Whoever signs it: a silo does not read such a plan."""
    fields = dict(drafted(**OF_FIVE)) | changes
    if "cohort" in changes:
        pins = drafted(**OF_FIVE).contracts
        fields["contracts"] = tuple(pin for pin in pins if pin.silo in changes["cohort"])
    with pytest.raises(ValidationError):
        RoundPlan.model_validate(fields)
