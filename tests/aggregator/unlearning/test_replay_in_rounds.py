"""A silo's part is taken out of a whole federation: what is published then is, digest for digest,
what a federation publishes that never had the silo."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from aggregator.audit.erasure_audit import NOT_REVOKED, audit_certificate
from aggregator.audit.report_audit import audit
from aggregator.evidence.spool import spool
from aggregator.federated_round import finish_latest_report
from aggregator.feed.claims import sign_entry
from aggregator.feed.reading import read_federation
from aggregator.planning.draft import draft_plan
from aggregator.planning.inputs import plan_inputs
from aggregator.report.compliance_page.page import split_page
from aggregator.report.files import erasures_beside, read_bundle
from aggregator.settings.masking import MaskingSection
from aggregator.settings.merge import MergeSection, OptimizerSection
from aggregator.unlearning.certificate_page import open_certificate
from aggregator.unlearning.completing import read_certificate_of
from aggregator.unlearning.erasing import Choices, start_erasure
from aggregator.unlearning.revoked import NOTICE, revoked_line
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from tests.aggregator.test_memberships_in_rounds import outcomes, report_of
from tests.aggregator.unlearning.story import Story, X
from tests.simulator.federation import FEDERATION

WHOLE: dict[str, Any] = {"merge": MergeSection(compression="none")}


@pytest.fixture
def story(tmp_path: Path, tiny_model: Path) -> Story:
    return Story(tmp_path / "with", tiny_model, **WHOLE)


@pytest.fixture
def never(tmp_path: Path, tiny_model: Path) -> Story:
    return Story(tmp_path / "never", tiny_model, **WHOLE)


def joined_in_round_2(story: Story) -> list[Verified[RoundPlan]]:
    plans = [story.next()]
    story.joins()
    plans += [story.next(), story.next()]
    assert [outcomes(report_of(story.federation, p)).get(X) for p in plans] == [
        None,
        ("admitted", None),
        ("admitted", None),
    ]
    return plans


def test_a_replay_publishes_what_a_federation_without_the_silo_does(
    story: Story, never: Story
) -> None:
    old = [story.published(plan) for plan in joined_in_round_2(story)]
    story.leaves()
    erasure = story.unlearn().record
    again = [story.next(), story.next()]
    assert [plan.record.round for plan in again] == [2, 3]
    without = [never.published(never.next()) for _ in range(3)]
    assert old[0] == without[0] == erasure.starting_adapter
    assert [story.published(plan) for plan in again] == without[1:]
    assert not set(old[1:]) & set(without)
    # And it goes on from there as any run does.
    assert story.published(story.next()) == never.published(never.next())


def test_no_silo_follows_the_old_run_and_no_coordinator_plans_it(story: Story) -> None:
    joined_in_round_2(story)
    story.leaves()
    erasure = story.unlearn()
    story.run("run-1")
    with pytest.raises(FederationOperatorError) as caught:
        story.next()
    assert f'run = "{erasure.record.replay_run}"' in caught.value.action
    # A coordinator that is not right plans it nevertheless: every silo says no, by name.
    c = story.federation.coordinator()
    feed = read_federation(c)
    plan = sign_entry(c, feed, _old_plan_again(story))
    story.federation.play(plan)
    told = outcomes(report_of(story.federation, plan))
    assert set(told.values()) == {("refused", "plan.revoked")}


def _old_plan_again(story: Story) -> RoundPlan:
    """Of the old run's next round, from its last adapter."""
    c = story.federation.coordinator()
    feed = read_federation(c)
    newest = feed.attempt_of_run("run-1")
    assert newest is not None
    adapter = report_of(story.federation, newest.plan).published_adapter
    fresh = draft_plan(c.settings, plan_inputs(c, feed), 4, 1)
    return fresh.model_copy(update={"starting_adapter": adapter, "earlier_adapter": None})


def test_a_killed_start_signs_no_second_erasure(story: Story) -> None:
    joined_in_round_2(story)
    story.leaves()
    first = story.unlearn()
    assert start_erasure(story.federation.coordinator(), X, Choices()) == first


def test_a_member_is_not_unlearned(story: Story) -> None:
    joined_in_round_2(story)
    with pytest.raises(FederationOperatorError) as caught:
        story.unlearn()
    assert "unlearn.is_member" in caught.value.found


def test_no_second_erasure_before_the_replay_of_the_first_is_through(story: Story) -> None:
    joined_in_round_2(story)
    story.leaves()
    story.unlearn()
    story.next()
    with pytest.raises(FederationOperatorError) as caught:
        story.unlearn()
    assert "unlearn.replay_under_way" in caught.value.found


def test_a_silo_that_joins_later_refuses_what_was_revoked_before_it_came(story: Story) -> None:
    joined_in_round_2(story)
    story.leaves()
    erasure = story.unlearn()
    story.next()
    story.next()
    federation = story.federation
    federation.add_silo("silo-c")
    members = federation.memberships[-1].record.silos
    federation.change(silos=(*members, federation.member("silo-c")))
    plan = story.next()
    assert plan.record.erasure is not None and plan.record.erasure.digest == erasure.digest
    assert outcomes(report_of(federation, plan))["silo-c"] == ("admitted", None)
    late = federation.silos["silo-c"].agent(FEDERATION, federation.pinned).feed.last_seen()
    assert late.erasures.all == (erasure,)


def test_settings_that_changed_since_play_no_part(story: Story, never: Story) -> None:
    joined_in_round_2(story)
    story.leaves()
    story.unlearn()
    settings = story.federation.settings
    recipe = settings.recipe.model_copy(update={"local_steps": 5, "seed": 77})
    changed = {"recipe": recipe, "merge": MergeSection(rule="average")}
    story.federation.settings = settings.model_copy(update=changed)
    again = [story.next(), story.next()]
    without = [never.published(never.next()) for _ in range(3)]
    assert [story.published(plan) for plan in again] == without[1:]


def test_from_the_seed_compressed_rounds_are_the_same_too(tmp_path: Path, tiny_model: Path) -> None:
    story, never = Story(tmp_path / "with", tiny_model), Story(tmp_path / "never", tiny_model)
    joined_in_round_2(story)
    story.leaves()
    story.unlearn(from_seed=True)
    again = [story.published(story.next()) for _ in range(3)]
    assert again == [never.published(never.next()) for _ in range(3)]


def test_the_replay_goes_through_whatever_encrypts_the_adapters(
    tmp_path: Path, tiny_model: Path
) -> None:
    story = Story(tmp_path / "with", tiny_model, encryption="age", **WHOLE)
    never = Story(tmp_path / "never", tiny_model, **WHOLE)
    joined_in_round_2(story)
    story.leaves()
    story.unlearn()
    again = [story.published(story.next()) for _ in range(2)]
    assert again == [never.published(never.next()) for _ in range(3)][1:]


def test_the_institution_gets_a_certificate_that_verifies(story: Story) -> None:
    plans = joined_in_round_2(story)
    story.leaves()
    erasure = story.unlearn()
    again = [story.next(), story.next()]
    c = story.federation.coordinator()
    file = c.reports / f"unlearned-{X}-{erasure.record.replay_run}.html"
    found, page = open_certificate(file)
    signed = read_certificate_of(c, read_federation(c), again[-1])
    assert signed is not None and signed.envelope == found.certificate
    record = signed.record
    assert [(r.round, r.old, r.new) for r in record.rounds] == [
        (p.record.round, digest(story.published(p)), digest(story.published(q)))
        for p, q in zip(plans[1:], again, strict=True)
    ]
    assert record.revoked_adapter == digest(story.published(plans[-1]))
    assert record.stays[0].until == plans[-1].record.evaluate_by + timedelta(days=365)
    for pinned in story.federation.memberships:
        adapter = c.published / "adapter_model.safetensors"
        claims = audit_certificate(found, page, pinned, adapter)
        assert {claim.outcome for claim in claims[:-1]} == {"pass"}
    changed = split_page(file.read_bytes().replace(b"was taken out again", b"was never there"))
    told = {c.name: c.outcome for c in audit_certificate(found, changed, pinned)}
    assert told["page as signed"] == "fail"
    # A coordinator that was killed before it wrote the page writes the same one.
    written = file.read_bytes()
    file.unlink()
    finish_latest_report(story.federation.coordinator())
    assert file.read_bytes() == written


def test_an_auditor_of_an_old_report_is_told_that_its_adapter_is_revoked(story: Story) -> None:
    joined_in_round_2(story)
    story.leaves()
    erasure = story.unlearn()
    story.next()
    reports = story.federation.coordinator().reports
    trusted = story.federation.memberships[0]

    def told(name: str) -> tuple[str, str]:
        erasures = erasures_beside(reports / name)
        assert erasures == [erasure.envelope]
        claims = audit(read_bundle(reports / name), trusted, erasures=erasures)
        return next((c.outcome, c.detail) for c in claims if c.name == NOT_REVOKED)

    assert told("run-1-round-0003.json")[0] == "fail"
    assert "silo-x" in told("run-1-round-0003.json")[1]
    assert told("run-1-round-0001.json")[0] == "pass"
    assert told("run-2-round-0002.json")[0] == "pass"


def test_where_a_revoked_adapter_is_shown_it_is_called_revoked(story: Story) -> None:
    joined_in_round_2(story)
    story.leaves()
    story.unlearn()
    c = story.federation.coordinator()
    assert "silo-x" in (c.published / NOTICE).read_text()
    assert revoked_line(c, read_federation(c)) is None
    story.run("run-1")
    old = story.federation.coordinator()
    assert "run-2" in (revoked_line(old, read_federation(old)) or "")
    story.run("run-2")
    story.next()
    assert not (c.published / NOTICE).exists()


def digest(ref: ArtifactRef | None) -> str | None:
    return None if ref is None else ref.digest


class ConfidentialStory(Story):
    """Of three, since of two silos each knows the other's part of a sum."""

    letters = "abc"


def test_in_confidential_mode_the_others_train_with_other_seeds(
    tmp_path: Path, tiny_model: Path
) -> None:
    """Silos open no second sum of one training; here a training does not depend on its seed, so
    that what is left between the two is that each silo rounds at random."""
    section = MaskingSection(key_minutes=5, share_minutes=5, reveal_minutes=10, largest_change=8)
    fields: dict[str, Any] = {"masking": section, "quorum": 3}
    fields["merge"] = MergeSection(rule="average", optimizer=OptimizerSection(name="fedavg"))
    story = ConfidentialStory(tmp_path / "with", tiny_model, **fields)
    never = ConfidentialStory(tmp_path / "never", tiny_model, **fields)
    story.next()
    story.joins()
    old = story.next()
    story.leaves()
    erasure = story.unlearn().record
    again = story.next()
    assert erasure.seed_offset > 0
    assert again.record.recipe.seed == old.record.recipe.seed + erasure.seed_offset
    assert outcomes(report_of(story.federation, again)) == dict.fromkeys(
        ("silo-a", "silo-b", "silo-c"), ("admitted", None)
    )
    never.next()
    without = tensors_of(never, never.next())
    assert (
        farthest(tensors_of(story, again), without)
        < ROUNDED
        < farthest(tensors_of(story, old), without)
    )


ROUNDED = 1e-4


def tensors_of(story: Story, plan: Verified[RoundPlan]) -> dict[str, np.ndarray]:
    """What a round published."""
    c, adapter = story.federation.coordinator(), story.published(plan)
    assert adapter is not None
    return load_file(spool(c, c.plans, adapter))


def farthest(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The largest difference between two entries."""
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)
