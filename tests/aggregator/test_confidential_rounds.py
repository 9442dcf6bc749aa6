"""Rounds in confidential mode: real agents, the coordinator's steps, masks, drop-outs and lies."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.attempt import Attempt
from aggregator.audit.report_audit import MASKED_SUM, audit
from aggregator.decisions.stage import Stage
from aggregator.evidence.spool import spool
from aggregator.federated_round import advance
from aggregator.report.files import read_bundle
from aggregator.settings.federation import AdapterSection, SiloAdapterSection
from aggregator.settings.masking import MaskingSection
from aggregator.settings.merge import MergeSection, OptimizerSection
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter, narrowed
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import (
    Countersignature,
    MaskKeys,
    RoundPlan,
    RoundRecord,
    SealedShares,
    Submission,
)
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.merge_spec import HeavyBall, MergeRule
from silo_agent.training.run_files import RunFiles
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

FIVE = dict.fromkeys("abcde", Behaviour.HONEST)
FOUR = dict.fromkeys("abcd", Behaviour.HONEST)
LONG_STEP = 100
"""Seconds; a silo that is gone is waited for."""
LARGEST = 8
"""Simulated adapters are drawn from a normal distribution."""


def masked(
    make: MakeFederation,
    rule: MergeRule = "average",
    silos: dict[str, Behaviour] = FIVE,
    largest: int = LARGEST,
    **fields: Any,
) -> SimulatedFederation:
    section = MaskingSection(
        key_minutes=5, share_minutes=5, reveal_minutes=10, largest_change=largest
    )
    plain = OptimizerSection(name="fedavg") if rule == "average" else None
    merge = MergeSection(rule=rule, optimizer=plain)
    fields = {"masking": section, "merge": merge} | fields
    return make(fields, **silos)


def attempt_in(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> Attempt:
    return federation.look(plan).attempt


def local_adapters(
    federation: SimulatedFederation, plan: RoundPlan, silos: str
) -> list[dict[str, np.ndarray]]:
    """What each silo trained, which never left it."""
    found = []
    for name in silos:
        home = federation.silos[f"silo-{name}"].home
        path = RunFiles(home / "work" / plan.run / f"round-{plan.round:04d}").adapter
        found.append(tensors(path, plan))
    return found


def tensors(path: Path, plan: RoundPlan) -> dict[str, np.ndarray]:
    adapter = open_adapter(path, plan.exchanged)
    return {
        f"{target.module}.{name}": factor
        for target in plan.exchanged.targets
        for name, factor in zip("ab", adapter.module(target), strict=True)
    }


def test_what_is_published_is_the_mean_and_storage_has_no_silo_s_part(
    make_federation: MakeFederation,
) -> None:
    federation = masked(make_federation)
    plan = federation.open(1)
    federation.play(plan)
    attempt = attempt_in(federation, plan)
    assert attempt.decision is not None
    assert attempt.candidate is not None
    assert attempt.decision.record.outcome == "published"
    c = federation.coordinator()
    found = tensors(spool(c, c.plans, attempt.candidate.record.adapter), plan.record)
    silos = local_adapters(federation, plan.record, "abcde")
    for name, mean in found.items():
        wanted = np.mean([own[name].astype(np.float64) for own in silos], axis=0)
        # Five errors of half a quantum at most, in a mean of five.
        assert np.abs(mean - wanted).max() < LARGEST / (2**31 // 5) + 1e-6
    everything = [
        data for bucket in federation.storage.values() for data in bucket.objects.values()
    ]
    for own in silos:
        piece = next(iter(own.values())).tobytes()[:64]
        assert not any(piece in data for data in everything)
    bundle = read_bundle(c.reports / "run-1-round-0001.json")
    claims = {claim.name: claim for claim in audit(bundle, federation.pinned)}
    assert [claim for claim in claims.values() if claim.outcome == "fail"] == []
    assert claims[MASKED_SUM].outcome == "pass"


@pytest.mark.parametrize("rule", ["fed_sb", "frozen_a", "alternating", "fedsvd", "shared_a"])
def test_two_rounds_of_every_linear_rule(make_federation: MakeFederation, rule: MergeRule) -> None:
    federation = masked(make_federation, rule, FOUR)
    for number in (1, 2):
        plan = federation.open(number)
        federation.play(plan)
        attempt = attempt_in(federation, plan)
        assert attempt.candidate is not None, [s.faults for s in federation.silos.values()]
        assert attempt.candidate.record.error is None


def test_masked_files_are_encrypted_as_adapters_are(make_federation: MakeFederation) -> None:
    federation = masked(make_federation, silos=FOUR, encryption="age")
    for number in (1, 2):
        plan = federation.open(number)
        federation.play(plan)
        attempt = attempt_in(federation, plan)
        assert attempt.decision is not None, [s.faults for s in federation.silos.values()]
        assert attempt.decision.record.outcome == "published"
        for own in attempt.cohort():
            assert own.submission is not None
            assert own.submission.record.adapter.ciphertext is not None
            assert own.submission.record.sealed_key is not None
    stored = [data for b in federation.storage.values() for data in b.objects.values()]
    assert not any(b"CSMASK" in data for data in stored)
    c = federation.coordinator()
    bundle = read_bundle(c.reports / "run-1-round-0002.json")
    claims = audit(bundle, federation.pinned)
    assert [claim for claim in claims if claim.outcome == "fail"] == []


def test_two_rounds_of_the_default_carry_the_change_of_the_averages_on(
    make_federation: MakeFederation,
) -> None:
    """The product of averaged factors and the heavy ball; as near as the best of the rank is."""
    federation = masked(make_federation, silos=FOUR, merge=MergeSection())
    c, found = federation.coordinator(), None
    starts: list[AdapterSource] = []
    for number in (1, 2):
        plan = federation.open(number)
        federation.play(plan)
        candidate = attempt_in(federation, plan).candidate
        assert candidate is not None, [s.faults for s in federation.silos.values()]
        record = plan.record
        assert (record.merge.rule, record.merge.optimizer) == ("average", HeavyBall())
        assert candidate.record.error is None
        start = InitialAdapter(record.layout) if found is None else found
        starts.append(start)
        found = open_adapter(spool(c, c.plans, candidate.record.adapter), record.layout)
        for target in record.layout.targets:
            locals_ = [local_source(federation, record, name).module(target) for name in "abcd"]
            a, b = (np.mean([own[i].astype(float) for own in locals_], axis=0) for i in (0, 1))
            carried = product(start, target) - product(starts[0], target)
            wanted = record.layout.scaling * b @ a + 0.3 * carried
            best = np.linalg.norm(np.linalg.svd(wanted)[1][record.layout.rank :])
            off = np.linalg.norm(product(found, target) - wanted)
            assert off < (1 + 1e-3) * best + 1e-4 * np.linalg.norm(wanted)


OWN_RANKS = {
    "silo-a": SiloAdapterSection(rank=1, alpha=8),
    "silo-c": SiloAdapterSection(rank=2, alpha=3),
}


@pytest.mark.parametrize("own_ranks", [{}, OWN_RANKS], ids=["one layout", "own ranks"])
def test_two_rounds_of_sketches_are_the_sum_of_products_cut_to_the_rank(
    make_federation: MakeFederation, own_ranks: dict[str, SiloAdapterSection]
) -> None:
    """With the heavy ball; as near as the best adapter of the rank is."""
    adapter = AdapterSection(rank=2, alpha=4)
    federation = masked(
        make_federation, "sketch", FOUR, 300, adapter=adapter, silo_adapters=own_ranks
    )
    c, found = federation.coordinator(), None
    starts: list[AdapterSource] = []
    for number in (1, 2):
        plan = federation.open(number)
        federation.play(plan)
        attempt = attempt_in(federation, plan)
        assert attempt.candidate is not None, [s.faults for s in federation.silos.values()]
        record, candidate = plan.record, attempt.candidate.record
        assert record.merge.optimizer == HeavyBall()
        assert candidate.error is None
        assert record.sketch_width == (9 if own_ranks else 10)
        start = InitialAdapter(record.layout) if found is None else found
        starts.append(start)
        found = open_adapter(spool(c, c.plans, candidate.adapter), record.layout)
        for target in record.layout.targets:
            changes = [
                product(local, target) - product(narrowed(start, local.layout), target)
                for local in (local_source(federation, record, name) for name in "abcd")
            ]
            carried = product(start, target) - product(starts[0], target)
            wanted = product(start, target) + np.mean(changes, axis=0) + 0.3 * carried
            best = np.linalg.norm(np.linalg.svd(wanted)[1][record.layout.rank :])
            assert np.linalg.norm(product(found, target) - wanted) < (1 + 1e-4) * best
        bundle = read_bundle(c.reports / f"run-1-round-{number:04d}.json")
        claims = {claim.name: claim for claim in audit(bundle, federation.pinned)}
        assert [claim for claim in claims.values() if claim.outcome == "fail"] == []
        assert claims[MASKED_SUM].outcome == "pass"


def local_source(federation: SimulatedFederation, plan: RoundPlan, name: str) -> AdapterSource:
    """What a silo trained, in its own layout."""
    home = federation.silos[f"silo-{name}"].home
    path = RunFiles(home / "work" / plan.run / f"round-{plan.round:04d}").adapter
    return open_adapter(path, plan.layout_of(f"silo-{name}"))


def product(source: AdapterSource, target: AdapterTarget) -> np.ndarray:
    a, b = source.module(target)
    return source.layout.scaling_of(target) * (b.astype(np.float64) @ a)


def secret_files(federation: SimulatedFederation) -> list[Path]:
    return [
        path
        for silo in federation.silos.values()
        for path in (silo.home / "masking").rglob("*")
        if path.is_file()
    ]


def test_secrets_are_erased_when_the_shares_are_revealed(make_federation: MakeFederation) -> None:
    federation = masked(make_federation, silos=FOUR)
    plan = federation.open(1)
    for _ in range(4):
        federation.silos_act()
        advance(federation.coordinator(), plan)
    assert secret_files(federation)
    federation.play(plan)
    assert secret_files(federation) == []


STEPS: list[type[RoundRecord]] = [MaskKeys, SealedShares, Submission, Countersignature]


@pytest.mark.parametrize("last", STEPS, ids=lambda kind: kind.kind)
@pytest.mark.parametrize("gone", [1, 2])
def test_silos_that_drop_out_after_any_step(
    make_federation: MakeFederation, last: type[RoundRecord], gone: int
) -> None:
    """Of five with a threshold of four one may go after any of its words, and two may not."""
    federation = masked(make_federation)
    leaving = [federation.silos[name] for name in ("silo-b", "silo-e")[:gone]]
    plan = federation.open(1)
    for _ in range(400):
        for silo in federation.silos.values():
            if silo in leaving and last.kind in silo.kinds():
                silo.behaviour = Behaviour.ABSENT
            silo.act(FEDERATION, federation.pinned)
        if advance(federation.coordinator(), plan) is Stage.REPORTED:
            break
        federation.clock.sleep(LONG_STEP)
    attempt = attempt_in(federation, plan)
    if gone == 2:
        assert attempt.abort is not None
        assert attempt.abort.record.rule in {"masking.too_few", "quorum.not_reached"}
        assert attempt.candidate is None
        return
    assert attempt.candidate is not None
    assert attempt.close is not None
    admitted = "".join(item.silo[-1] for item in attempt.close.record.admitted)
    assert admitted == ("abcde" if last is Countersignature or last is Submission else "acde")
    c = federation.coordinator()
    found = tensors(spool(c, c.plans, attempt.candidate.record.adapter), plan.record)
    silos = local_adapters(federation, plan.record, admitted)
    for name, mean in found.items():
        wanted = np.mean([own[name].astype(np.float64) for own in silos], axis=0)
        assert np.abs(mean - wanted).max() < LARGEST / (2**31 // 5) * 5 + 1e-6
