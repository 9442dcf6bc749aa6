"""A silo follows no plan that starts from what was revoked, nor one that hides an erasure."""

from pathlib import Path

import pytest

from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.known_erasures import KnownErasures
from tests.data_contracts.erasure_samples import WITH_PART, WITHOUT, erasure
from tests.silo_agent.test_policy import PLAN, context, decided_by, policy

ERASED = erasure(2, "0" * 64)
STARTS = ("starting_adapter", "earlier_adapter", "server_state", "starting_residual")


def known() -> KnownErasures:
    erasures = KnownErasures()
    erasures.add(ERASED)
    return erasures


@pytest.mark.parametrize("name", sorted(STARTS))
def test_a_plan_that_starts_from_what_was_revoked_is_refused(tmp_path: Path, name: str) -> None:
    def judged(digest: str) -> str | None:
        ref = ArtifactRef(digest=digest, size=1)
        plan = PLAN.model_copy(update={name: ref, "erasure": known().newest})
        return decided_by(plan, policy(tmp_path), context(erasures=known()))

    assert judged(WITH_PART) == "plan.revoked"
    assert judged(WITHOUT) is None


def test_a_plan_that_does_not_name_the_newest_erasure_is_refused(tmp_path: Path) -> None:
    where = context(erasures=known())
    assert decided_by(PLAN, policy(tmp_path), where) == "plan.erasure"
    named = PLAN.model_copy(update={"erasure": known().newest})
    assert decided_by(named, policy(tmp_path), where) is None
    assert decided_by(named, policy(tmp_path), context()) == "plan.erasure"
