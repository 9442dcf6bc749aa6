"""Rounds in confidential mode: real agents, the coordinator's steps, masks, drop-outs and lies."""

import pytest

from aggregator.decisions.stage import Stage
from aggregator.evidence.spool import spool
from aggregator.federated_round import advance
from aggregator.settings.masking import MaskingSection
from aggregator.settings.merge import MergeSection
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

MASKED = {"masking": MaskingSection(key_minutes=5, share_minutes=5, reveal_minutes=10)}
FIVE = dict.fromkeys("abcde", Behaviour.HONEST)


def masked(make: MakeFederation, **fields) -> SimulatedFederation:
    rule = fields.pop("rule", "average")
    return make({**MASKED, "merge": MergeSection(rule=rule), **fields}, **FIVE)


def test_a_round_publishes_the_mean(make_federation: MakeFederation) -> None:
    federation = masked(make_federation)
    plan = federation.open(1)
    stages = federation.play(plan)
    attempt = federation.look(plan).attempt
    print(stages, [s.faults for s in federation.silos.values()])
    assert attempt.candidate is not None
    assert attempt.decision.record.outcome == "published"
