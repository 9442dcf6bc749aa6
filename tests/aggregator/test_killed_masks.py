"""An agent in confidential mode that is killed anywhere says the same as one that was not."""

import os
from typing import Any

import numpy as np
import pytest

from aggregator.decisions.stage import Stage
from aggregator.evidence.spool import spool
from aggregator.federated_round import advance
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from tests.aggregator.test_confidential_rounds import (
    FOUR,
    LARGEST,
    local_adapters,
    masked,
    tensors,
)
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation

FIRST_KILLS = (9, 33)
ALL_KILLS = tuple(range(1, 56, 5))


class KilledError(BaseException):
    """Nothing of the agent catches it, as nothing catches a kill."""


class Killer:
    """Raises before the n-th change of disk or storage that the agent of one silo makes."""

    def __init__(self, number: int) -> None:
        self.left, self.armed, self.done = number, False, False

    def before(self) -> None:
        """Called before every change."""
        if not self.armed or self.done:
            return
        self.left -= 1
        if self.left == 0:
            self.done = True
            raise KilledError


def play_with(
    federation: SimulatedFederation, plan: Verified[RoundPlan], killer: Killer, silo: str
) -> None:
    for _ in range(200):
        for name, each in federation.silos.items():
            killer.armed = name == silo
            try:
                each.act(FEDERATION, federation.pinned)
            except KilledError:
                assert killer.done
            killer.armed = False
        if advance(federation.coordinator(), plan) is Stage.REPORTED:
            return
        federation.clock.sleep(5)
    raise AssertionError("not reported")


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(n, marks=[] if n in FIRST_KILLS else pytest.mark.long)
        for n in sorted({*FIRST_KILLS, *ALL_KILLS})
    ],
)
def test_killed_before_any_change(
    make_federation: MakeFederation, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    federation = masked(make_federation, silos=FOUR)
    plan = federation.open(1)
    killer = Killer(number)
    replace = os.replace

    def replaced(*arguments: Any, **options: Any) -> None:
        killer.before()
        replace(*arguments, **options)

    monkeypatch.setattr(os, "replace", replaced)
    federation.inbox("silo-b").before = lambda operation, _: (
        killer.before() if operation.startswith("put") else None
    )
    play_with(federation, plan, killer, "silo-b")
    assert killer.done
    attempt = federation.look(plan).attempt
    assert attempt.close is not None
    assert attempt.candidate is not None
    assert [item.silo for item in attempt.close.record.admitted] == sorted(federation.silos)
    assert not attempt.of("silo-b").equivocated
    c = federation.coordinator()
    found = tensors(spool(c, c.plans, attempt.candidate.record.adapter), plan.record)
    silos = local_adapters(federation, plan.record, "abcd")
    for name, mean in found.items():
        wanted = np.mean([own[name].astype(np.float64) for own in silos], axis=0)
        assert np.abs(mean - wanted).max() < LARGEST / (2**31 // 4) * 4 + 1e-6
