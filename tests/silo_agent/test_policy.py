"""The policy decides by its own file, one step on either side of every limit."""

import tomllib
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from data_contracts.adapters.adapter_format import adapter_bytes_limit
from data_contracts.protocol.records import Membership, RoundPlan
from data_contracts.protocol.records.adapter_layout import SiloLayout
from data_contracts.protocol.records.masking_terms import MaskingTerms
from data_contracts.protocol.records.membership import Member
from data_contracts.protocol.records.merge_spec import (
    FedAdam,
    FedAvg,
    HeavyBall,
    MergeSpec,
    ServerOptimizer,
)
from data_contracts.protocol.records.model_family import FamilyTask
from data_contracts.protocol.records.plan_terms import Retention
from silo_agent.first_day.templates import policy_text
from silo_agent.policy.contract_terms import ContractTerms
from silo_agent.policy.plan_context import PlanContext
from silo_agent.policy.policy_file import (
    MAX_POLICY_BYTES,
    PolicyFile,
    read_policy,
    require_policy,
)
from silo_agent.policy.rules import judge_plan
from tests.aggregator.federation_samples import federation, key, membership

FED = federation()
PLAN = FED.plan.record
SILO = PLAN.cohort[0]
BYTES = adapter_bytes_limit(PLAN.layout)

POLICY = """\
version = 1
take_part = true
purposes = ["{purpose}"]
trust_modes = ["auditable"]
trust_storage_with_deltas = true
[limits]
max_local_steps = {steps}
max_sequences_per_step = {sequences}
max_sequence_length = {length}
max_learning_rate = {rate}
max_rank = {rank}
max_adapter_bytes = {bytes}
min_cohort_silos = {cohort}
max_retention_days = {days}
[[models]]
name = "a model"
licence = "{licence}"
digest = "{digest}"
path = "/models/a"
{acceptance}
"""

EXACT: dict[str, Any] = {
    "purpose": PLAN.purpose,
    "steps": PLAN.recipe.local_steps,
    "sequences": PLAN.recipe.sequences_per_step,
    "length": PLAN.recipe.sequence_length,
    "rate": PLAN.recipe.learning_rate,
    "rank": PLAN.layout.rank,
    "bytes": BYTES,
    "cohort": len(PLAN.cohort),
    "days": PLAN.retention.days,
    "licence": PLAN.base_model.licence,
    "digest": PLAN.base_model.digest,
    "acceptance": "",
}


def members_from(first_round: int, silos: tuple[str, ...] = PLAN.cohort) -> Membership:
    """The cohort as members from a round on."""
    members = tuple(
        Member(silo=silo, public_key=key(silo).public_key_hex, first_round=first_round)
        for silo in silos
    )
    return membership(silos=members).record


def without(silo: str) -> Membership:
    return members_from(1, tuple(other for other in PLAN.cohort if other != silo))


MEMBERS = members_from(PLAN.round)


def policy(tmp_path: Path, **changes: Any) -> PolicyFile:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY.format(**{**EXACT, **changes}))
    return read_policy(path)


def terms(**changes: Any) -> ContractTerms:
    values: dict[str, Any] = {
        "digest": PLAN.contract_digest_of(SILO),
        "purposes": (PLAN.purpose,),
        "expires_at": PLAN.expires_at,
    }
    return ContractTerms(**values | changes)


def context(**changes: Any) -> PlanContext:
    values: dict[str, Any] = {
        "silo": SILO,
        "federation": PLAN.federation,
        "membership": MEMBERS,
        "contract": terms(),
        "now": PLAN.issued_at,
    }
    return PlanContext(**{**values, **changes})


def decided_by(plan: RoundPlan, file: PolicyFile, where: PlanContext) -> str | None:
    refusal = judge_plan(plan, file, where)
    return refusal.rule if refusal else None


@pytest.mark.parametrize("rate", ["0", "-0.001"])
def test_a_rate_that_does_not_learn_or_unlearns_is_refused(tmp_path: Path, rate: str) -> None:
    recipe = PLAN.recipe.model_copy(update={"learning_rate": Decimal(rate)})
    plan = PLAN.model_copy(update={"recipe": recipe})
    assert decided_by(plan, policy(tmp_path), context()) == "policy.learning_rate"


def test_a_policy_ends_at_its_largest_size(tmp_path: Path) -> None:
    """Whatever makes it so long: what was not read to its end is no policy."""
    whole = policy(tmp_path)
    path = tmp_path / "policy.toml"
    text = path.read_text()
    path.write_text(text + "#" * (MAX_POLICY_BYTES - len(text)))
    assert read_policy(path).policy == whole.policy
    path.write_text(text + "#" * (MAX_POLICY_BYTES - len(text) + 1))
    found = read_policy(path)
    assert found.policy is None and "larger than 65536 bytes" in (found.problem or "")


def test_a_policy_shares_the_silo_s_adapter_only_where_it_says_so(tmp_path: Path) -> None:
    silent = policy(tmp_path)
    path = tmp_path / "policy.toml"
    path.write_text(f"share_individual_delta = true\n{path.read_text()}")
    says_so = read_policy(path)
    assert silent.policy is not None and says_so.policy is not None
    assert not silent.policy.share_individual_delta
    assert says_so.policy.share_individual_delta
    assert tomllib.loads(policy_text("", None))["share_individual_delta"] is False


def test_locks_that_nobody_opens_have_to_be_allowed(tmp_path: Path) -> None:
    firm = PLAN.model_copy(update={"retention": Retention(mode="compliance", days=1)})
    assert decided_by(firm, policy(tmp_path), context()) == "policy.retention"
    path = tmp_path / "policy.toml"
    path.write_text(f"compliance_retention = true\n{path.read_text()}")
    assert decided_by(firm, read_policy(path), context()) is None
    assert tomllib.loads(policy_text("", None))["compliance_retention"] is False


def test_being_named_in_what_is_published_has_to_be_allowed(tmp_path: Path) -> None:
    naming = PLAN.publication.model_copy(update={"name_silos": True})
    plan = PLAN.model_copy(update={"publication": naming})
    assert decided_by(plan, policy(tmp_path), context()) == "policy.named"
    path = tmp_path / "policy.toml"
    path.write_text(f"may_be_named = true\n{path.read_text()}")
    assert decided_by(plan, read_policy(path), context()) is None
    assert tomllib.loads(policy_text("", None))["may_be_named"] is False


def test_a_plan_that_does_not_fit_is_refused_with_the_numbers(tmp_path: Path) -> None:
    short = context(lacks={"policy.resources": "It needs 2 GB, and 1 GB is there."})
    refusal = judge_plan(PLAN, policy(tmp_path), short)
    assert refusal is not None
    assert refusal.reason.endswith("memory. It needs 2 GB, and 1 GB is there.")
    other = judge_plan(PLAN, policy(tmp_path, rank=PLAN.layout.rank - 1), short)
    assert other is not None and other.rule == "policy.rank"
    assert "GB" not in other.reason, "which are told with their own rule alone"


def test_a_plan_exactly_at_every_limit_is_accepted(tmp_path: Path) -> None:
    assert decided_by(PLAN, policy(tmp_path), context()) is None


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("policy.local_steps", {"steps": PLAN.recipe.local_steps - 1}),
        ("policy.sequences_per_step", {"sequences": PLAN.recipe.sequences_per_step - 1}),
        ("policy.sequence_length", {"length": PLAN.recipe.sequence_length - 1}),
        ("policy.learning_rate", {"rate": PLAN.recipe.learning_rate - Decimal("0.000001")}),
        ("policy.rank", {"rank": PLAN.layout.rank - 1}),
        ("policy.adapter_bytes", {"bytes": BYTES - 1}),
        ("policy.cohort", {"cohort": len(PLAN.cohort) + 1}),
        ("policy.retention", {"days": PLAN.retention.days - 1}),
        ("policy.purpose", {"purpose": "something else"}),
        ("policy.base_model", {"digest": "0" * 64}),
        ("policy.base_model", {"licence": "MIT-0"}),
    ],
)
def test_one_step_beyond_a_limit_is_refused_by_its_rule(
    tmp_path: Path, rule: str, changes: dict[str, Any]
) -> None:
    assert decided_by(PLAN, policy(tmp_path, **changes), context()) == rule


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("plan.federation", {"federation": "another"}),
        ("plan.membership", {"membership": without(SILO)}),
        ("plan.membership", {"membership": members_from(PLAN.round + 1)}),
        ("plan.earlier_round", {"goes_back": True}),
        ("plan.expired", {"now": PLAN.submit_by}),
        ("policy.contract", {"contract": None}),
        ("policy.contract", {"contract": terms(digest="0" * 64)}),
        ("policy.contract_purpose", {"contract": terms(purposes=("another",))}),
        ("policy.contract_expired", {"contract": terms(expires_at=PLAN.issued_at)}),
        ("policy.contract_use", {"contract": terms(uses=("commercial",))}),
        ("policy.contract_duo", {"contract": terms(duo_codes=("DUO:0000021",))}),
        ("policy.contract_egress", {"contract": terms(egress=("status", "losses"))}),
        ("policy.family", {"contract": terms(form="image-text")}),
        ("policy.family_model", {"lacks": {"policy.family_model": ""}}),
        *(
            (rule, {"lacks": {rule: "It needs 2, and 1 is there."}})
            for rule in ("policy.resources", "policy.least_steps", "policy.ranks")
        ),
    ],
)
def test_a_plan_that_does_not_fit_this_silo_is_refused(
    tmp_path: Path, rule: str, changes: dict[str, Any]
) -> None:
    assert decided_by(PLAN, policy(tmp_path), context(**changes)) == rule


def of_family(family: str, *classes: str) -> RoundPlan:
    """The plan with a task."""
    task = FamilyTask.model_validate({"family": family, "classes": classes or None})
    return PLAN.model_copy(update={"task": task})


@pytest.mark.parametrize(
    ("plan", "contract", "rule"),
    [
        (of_family("masked-lm"), terms(form="text"), None),
        (of_family("masked-lm"), terms(form="chat"), "policy.family"),
        (of_family("dual-encoder"), terms(form="image-text"), None),
        (of_family("dual-encoder"), terms(form="text"), "policy.family"),
        (of_family("denoising"), terms(form="classification"), "policy.family"),
        (PLAN, terms(form="classification", classes=frozenset("ab")), None),
        *(
            (
                of_family("sequence-classification", "a", "b"),
                terms(form="classification", classes=frozenset(classes)),
                rule,
            )
            for classes, rule in (("ab", None), ("b", None), ("abc", "policy.classes"))
        ),
    ],
)
def test_a_task_has_to_be_one_that_the_silo_s_records_are_for(
    tmp_path: Path, plan: RoundPlan, contract: ContractTerms, rule: str | None
) -> None:
    assert decided_by(plan, policy(tmp_path), context(contract=contract)) == rule


COMMERCIAL = PLAN.model_copy(update={"use": "commercial"})
BOTH = ("research", "commercial")
GRU, IRB, NCU = "DUO:0000042", "DUO:0000021", "DUO:0000046"


@pytest.mark.parametrize(
    ("plan", "contract", "rule"),
    [
        (PLAN, terms(), None),
        (COMMERCIAL, terms(), "policy.contract_use"),
        (COMMERCIAL, terms(uses=BOTH), None),
        (COMMERCIAL, terms(uses=("commercial",)), None),
        (PLAN, terms(duo_codes=(GRU, NCU)), None),
        (COMMERCIAL, terms(uses=BOTH, duo_codes=(GRU, NCU)), "policy.contract_duo"),
        (PLAN, terms(duo_codes=(GRU, IRB)), "policy.contract_duo"),
        (PLAN, terms(duo_codes=(GRU, IRB), attested=frozenset({GRU})), "policy.contract_duo"),
        (PLAN, terms(duo_codes=(GRU, IRB), attested=frozenset({IRB})), None),
        (PLAN, terms(duo_codes=(IRB,), attested=frozenset({IRB})), "policy.contract_duo"),
        (PLAN, terms(expires_at=PLAN.issued_at + timedelta(seconds=1)), None),
        (PLAN, terms(egress=("local-adapter",)), None),
    ],
)
def test_the_contract_says_for_which_use_the_data_may_be_trained_on(
    tmp_path: Path, plan: RoundPlan, contract: ContractTerms, rule: str | None
) -> None:
    assert decided_by(plan, policy(tmp_path), context(contract=contract)) == rule


GEMMA = "LicenseRef-Gemma-Terms"
ACCEPTED = f"{GEMMA} accepted by A. Person"
OTHERS = "LicenseRef-OpenRAIL-M accepted by A. Person"


@pytest.mark.parametrize(
    ("licence", "theirs", "ours", "rule"),
    [
        ("Apache-2.0", None, None, None),
        (GEMMA, ACCEPTED, ACCEPTED, None),
        (GEMMA, ACCEPTED, None, "policy.model_licence"),
        (GEMMA, None, ACCEPTED, "policy.model_licence"),
        (GEMMA, ACCEPTED, OTHERS, "policy.model_licence"),
        (GEMMA, ACCEPTED, f"{GEMMA} accepted by ", "policy.model_licence"),
        ("LicenseRef-Unheard-Of", None, None, "policy.model_licence"),
        ("CC-BY-NC-4.0", None, None, None),
    ],
)
def test_both_sides_have_to_accept_terms_that_ask_for_it(
    tmp_path: Path, licence: str, theirs: str | None, ours: str | None, rule: str | None
) -> None:
    licensed = {"licence": licence, "licence_acceptance": theirs}
    plan = PLAN.model_copy(update={"base_model": PLAN.base_model.model_copy(update=licensed)})
    line = f'licence_acceptance = "{ours}"' if ours else ""
    file = policy(tmp_path, licence=licence, acceptance=line)
    assert decided_by(plan, file, context()) == rule


def test_a_non_commercial_model_is_not_trained_for_commercial_use(tmp_path: Path) -> None:
    base_model = PLAN.base_model.model_copy(update={"licence": "CC-BY-NC-4.0"})
    plan = COMMERCIAL.model_copy(update={"base_model": base_model})
    allowed = context(contract=terms(uses=BOTH))
    file = policy(tmp_path, licence="CC-BY-NC-4.0")
    assert decided_by(plan, file, allowed) == "policy.model_licence"


def test_a_plan_one_second_before_its_deadline_is_not_expired(tmp_path: Path) -> None:
    just_in_time = context(now=PLAN.submit_by - timedelta(seconds=1))
    assert decided_by(PLAN, policy(tmp_path), just_in_time) is None


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        ("policy.take_part", "take_part = true", "take_part = false"),
        (
            "policy.storage_trust",
            "trust_storage_with_deltas = true",
            "trust_storage_with_deltas = false",
        ),
        ("policy.unreadable", '["auditable"]', '["confidential"]'),
        ("policy.unreadable", "max_rank", "max_rnak"),
        ("policy.unreadable", "version = 1", "version = 2"),
        ("policy.unreadable", "take_part = true", ""),
        ("policy.unreadable", "[limits]", "[limits"),
    ],
)
def test_a_policy_fails_closed(tmp_path: Path, rule: str, old: str, new: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY.format(**EXACT).replace(old, new, 1))
    assert decided_by(PLAN, read_policy(path), context()) == rule


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"x = 1\n" * 20_000])
def test_an_empty_or_unreadable_policy_refuses_everything(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(content)
    assert decided_by(PLAN, read_policy(path), context()) == "policy.unreadable"


def test_a_missing_policy_refuses_and_says_what_to_do(tmp_path: Path) -> None:
    missing = read_policy(tmp_path / "policy.toml")
    assert decided_by(PLAN, missing, context()) == "policy.unreadable"
    with pytest.raises(Exception, match="refuses every plan"):
        require_policy(missing)


MASKING = MaskingTerms(
    threshold=3,
    keys_by=PLAN.issued_at + timedelta(minutes=1),
    shares_by=PLAN.issued_at + timedelta(minutes=2),
    reveal_by=PLAN.submit_by + timedelta(minutes=1),
)
CONFIDENTIAL = PLAN.model_copy(update={"trust_mode": "confidential", "masking": MASKING})


def confidential_policy(tmp_path: Path, limit: str = "", least: str = "3") -> PolicyFile:
    path = tmp_path / "policy.toml"
    text = POLICY.format(**EXACT).replace('["auditable"]', '["confidential"]')
    text = text.replace("trust_storage_with_deltas = true", "trust_storage_with_deltas = false")
    least = f"min_summed_silos = {least}" if least else ""
    path.write_text(text.replace("[limits]\n", f"[limits]\n{least}\n{limit}\n"))
    return read_policy(path)


def test_a_confidential_plan_needs_a_policy_that_lists_it_and_no_trust_in_storage(
    tmp_path: Path,
) -> None:
    assert decided_by(CONFIDENTIAL, confidential_policy(tmp_path), context()) is None
    assert decided_by(PLAN, confidential_policy(tmp_path), context()) == "policy.trust_mode"
    assert decided_by(CONFIDENTIAL, policy(tmp_path), context()) == "policy.trust_mode"


@pytest.mark.parametrize(("least", "rule"), [(3, None), (4, "policy.min_summed_silos")])
def test_a_silo_has_a_least_sum_of_its_own(tmp_path: Path, least: int, rule: str | None) -> None:
    own = confidential_policy(tmp_path, least=f"{least}")
    assert decided_by(CONFIDENTIAL, own, context()) == rule


def test_confidential_mode_needs_a_least_sum(tmp_path: Path) -> None:
    """Two thirds of a cohort that the coordinator picks may be two of its friends and this silo."""
    own = confidential_policy(tmp_path, least="")
    assert "confidential mode needs limits.min_summed_silos" in (own.problem or "")
    assert decided_by(CONFIDENTIAL, own, context()) == "policy.unreadable"


@pytest.mark.parametrize(("opened", "rule"), [(0, None), (1, None), (2, "policy.sums_per_start")])
def test_a_silo_opens_so_many_sums_from_one_start(
    tmp_path: Path, opened: int, rule: str | None
) -> None:
    own = confidential_policy(tmp_path, "max_sums_per_start = 2")
    assert decided_by(CONFIDENTIAL, own, context(sums_opened=opened)) == rule
    unlimited = confidential_policy(tmp_path)
    assert decided_by(CONFIDENTIAL, unlimited, context(sums_opened=opened)) is None


def test_a_silo_that_opened_a_sum_of_the_round_opens_no_other(tmp_path: Path) -> None:
    again = context(is_second_sum=True)
    assert decided_by(CONFIDENTIAL, confidential_policy(tmp_path), again) == "plan.second_sum"
    assert decided_by(PLAN, policy(tmp_path), again) is None


def test_limits_are_on_the_layout_that_this_silo_trains(tmp_path: Path) -> None:
    own = SiloLayout(silo=SILO, rank=PLAN.layout.rank - 1, alpha=1)
    plan = PLAN.model_copy(update={"silo_layouts": (own,)})
    layout = plan.layout_of(SILO)
    exact = {"rank": layout.rank, "bytes": adapter_bytes_limit(layout)}
    assert decided_by(plan, policy(tmp_path, **exact), context()) is None
    smaller = policy(tmp_path, **{**exact, "bytes": exact["bytes"] - 1})
    assert decided_by(plan, smaller, context()) == "policy.adapter_bytes"
    other = own.model_copy(update={"silo": PLAN.cohort[1]})
    plan = PLAN.model_copy(update={"silo_layouts": (other,)})
    assert decided_by(plan, policy(tmp_path, **exact), context()) == "policy.rank"


@pytest.mark.parametrize(
    ("recipe", "changes", "rule"),
    [
        ({"proximal_mu": Decimal("0.1")}, {}, None),
        ({"proximal_mu": Decimal("-0.1")}, {}, "plan.trainable"),
        ({"trained_factors": "a"}, {}, None),
        ({"trained_factors": "a"}, {"starting_adapter": None}, "plan.trainable"),
        ({"trained_factors": "b"}, {"starting_adapter": None}, None),
    ],
)
def test_a_recipe_that_cannot_train_is_refused(
    tmp_path: Path, recipe: dict[str, Any], changes: dict[str, Any], rule: str | None
) -> None:
    changed = PLAN.recipe.model_copy(update=recipe)
    plan = PLAN.model_copy(update={"recipe": changed, **changes})
    assert decided_by(plan, policy(tmp_path), context()) == rule


SHARES_A = MergeSpec(rule="shared_a", weight_cap_tokens=100)


@pytest.mark.parametrize(
    ("steps", "least", "merge", "rule"),
    [
        (2, None, SHARES_A, None),
        (1, None, SHARES_A, "plan.trainable"),
        (3, 1, SHARES_A, "plan.trainable"),
        (1, None, PLAN.merge, None),
    ],
)
def test_a_silo_that_shares_a_needs_two_steps(
    tmp_path: Path, steps: int, least: int | None, merge: MergeSpec, rule: str | None
) -> None:
    """In the first of them, with B at zero, A does not move."""
    changes = {"local_steps": steps, "least_steps": least, "warmup_steps": 0}
    recipe = PLAN.recipe.model_copy(update=changes)
    plan = PLAN.model_copy(update={"recipe": recipe, "merge": merge})
    assert decided_by(plan, policy(tmp_path), context()) == rule


def test_what_a_silo_releases_is_a_alone_where_it_keeps_b(tmp_path: Path) -> None:
    plan = PLAN.model_copy(update={"merge": SHARES_A})
    least = adapter_bytes_limit(plan.exchanged)
    assert least < BYTES
    assert decided_by(plan, policy(tmp_path, bytes=least), context()) is None
    assert decided_by(PLAN, policy(tmp_path, bytes=least), context()) == "policy.adapter_bytes"
    smaller = policy(tmp_path, bytes=least - 1)
    assert decided_by(plan, smaller, context()) == "policy.adapter_bytes"


HUGE = Decimal(10) ** 17
UNUSUAL: dict[str, dict[str, Any]] = {
    "gradients turned around": {"max_gradient_norm": Decimal(-1)},
    "gradients without a limit": {"max_gradient_norm": Decimal(0)},
    "gradients with a limit that is none": {"max_gradient_norm": HUGE},
    "weights that grow": {"weight_decay": Decimal("-0.01")},
    "weights that vanish": {"weight_decay": Decimal("1.01")},
    "a warm-up that never ends": {"warmup_steps": 2**53 - 1},
    "a warm-up of one step too many": {"warmup_steps": PLAN.recipe.local_steps + 1},
    "more steps at the least than in all": {"least_steps": PLAN.recipe.local_steps + 1},
    "a warm-up beyond what a silo has to do": {"least_steps": 4, "warmup_steps": 5},
    "pulled back to nothing": {"proximal_mu": Decimal(10) ** 12},
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_a_recipe_of_numbers_that_make_no_sense_is_refused(tmp_path: Path, name: str) -> None:
    plan = PLAN.model_copy(update={"recipe": PLAN.recipe.model_copy(update=UNUSUAL[name])})
    assert decided_by(plan, policy(tmp_path), context()) == "plan.numbers"


def test_a_learning_rate_that_a_careless_policy_allows_is_refused(tmp_path: Path) -> None:
    recipe = PLAN.recipe.model_copy(update={"learning_rate": Decimal("1.5")})
    plan = PLAN.model_copy(update={"recipe": recipe})
    assert decided_by(plan, policy(tmp_path, rate=100), context()) == "plan.numbers"


def test_an_adapter_that_is_scaled_beyond_sense_is_refused(tmp_path: Path) -> None:
    loud = PLAN.layout.model_copy(update={"alpha": 257 * PLAN.layout.rank})
    assert decided_by(PLAN.model_copy(update={"layout": loud}), policy(tmp_path), context()) == (
        "plan.numbers"
    )
    own = SiloLayout(silo=PLAN.cohort[1], rank=1, alpha=257)
    plan = PLAN.model_copy(update={"silo_layouts": (own,)})
    assert decided_by(plan, policy(tmp_path), context()) == "plan.numbers"
    quiet = plan.model_copy(update={"silo_layouts": (own.model_copy(update={"alpha": 256}),)})
    assert decided_by(quiet, policy(tmp_path), context()) is None


@pytest.mark.parametrize(
    "optimizer",
    [
        FedAvg(learning_rate=Decimal("10.1")),
        HeavyBall(learning_rate=HUGE),
        FedAdam(learning_rate=Decimal("0.1"), tau=Decimal("1.1")),
    ],
    ids=lambda value: value.name,
)
def test_a_server_that_leaps_is_refused(tmp_path: Path, optimizer: ServerOptimizer) -> None:
    merge = PLAN.merge.model_copy(update={"optimizer": optimizer})
    plan = PLAN.model_copy(update={"merge": merge})
    assert decided_by(plan, policy(tmp_path), context()) == "plan.numbers"


@pytest.mark.parametrize("field", ["max_mean_increase", "max_silo_increase"])
@pytest.mark.parametrize("value", [Decimal(101), Decimal(-101)])
def test_a_publication_rule_that_is_none_is_refused(
    tmp_path: Path, field: str, value: Decimal
) -> None:
    rule = PLAN.publication.model_copy(update={field: value})
    plan = PLAN.model_copy(update={"publication": rule})
    assert decided_by(plan, policy(tmp_path), context()) == "plan.numbers"


def test_what_a_silo_refuses_can_still_be_read() -> None:
    """Signed plans of before there were bounds stay records."""
    recipe = PLAN.recipe.model_copy(update=UNUSUAL["gradients turned around"])
    plan = PLAN.model_copy(update={"recipe": recipe})
    assert RoundPlan.model_validate_json(plan.model_dump_json()) == plan
