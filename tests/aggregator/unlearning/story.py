"""A federation of two that a third silo joins, leaves, and is taken out of again."""

from pathlib import Path
from typing import Any

from aggregator.feed.reading import next_round, read_federation
from aggregator.unlearning.erasing import Choices, start_erasure
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Erasure, RoundPlan
from tests.aggregator.test_memberships_in_rounds import report_of
from tests.simulator.federation import SimulatedFederation

X = "silo-x"


class Story:
    """silo-a and silo-b, and for a while silo-x."""

    letters = "ab"

    def __init__(self, directory: Path, model: Path, **fields: Any) -> None:
        self.federation = SimulatedFederation(directory, model, **fields)
        for letter in self.letters:
            self.add(f"silo-{letter}")
        self.federation.found()

    def add(self, name: str) -> None:
        """A silo that is no member yet."""
        self.federation.add_silo(name)

    def joins(self) -> None:
        """silo-x becomes a member from the next plan on."""
        federation = self.federation
        self.add(X)
        members = federation.memberships[-1].record.silos
        federation.change(silos=(*members, federation.member(X)))

    def leaves(self) -> None:
        """And no member from the next plan on."""
        members = self.federation.memberships[-1].record.silos
        self.federation.change(silos=tuple(m for m in members if m.silo != X))

    def next(self) -> Verified[RoundPlan]:
        """The round that is due, to its report."""
        c = self.federation.coordinator()
        plan = self.federation.open(next_round(c, read_federation(c)))
        self.federation.play(plan)
        return plan

    def published(self, plan: Verified[RoundPlan]) -> ArtifactRef | None:
        """What its report says is in force."""
        found = report_of(self.federation, plan).published_adapter
        return None if found is None else found.plain

    def unlearn(self, **choices: Any) -> Verified[Erasure]:
        """Sign the erasure, and let the federation go on with the run that it names."""
        erasure = start_erasure(self.federation.coordinator(), X, Choices(**choices))
        self.run(erasure.record.replay_run)
        return erasure

    def run(self, name: str) -> None:
        """As the operator sets it in federation.toml."""
        changed = self.federation.settings.model_copy(update={"run": name})
        self.federation.settings = changed
