"""A silo that is killed before any change of its disk, or of storage, in a private round: it is
charged once, its total never falls, and its noise is drawn from one secret."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from data_contracts.errors import SiloOperatorError
from infra.backup.home_restore import require_reading
from silo_agent.loop import run_agent
from silo_agent.privacy.ledger import PRIVACY, SECRETS, PrivacyLedger
from silo_agent.privacy.ledger_lines import Charged, LedgerLines
from tests.aggregator.test_private_rounds import budget, private
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import SimulatedSilo

FIRST_KILLS = (17, 26)
ALL_KILLS = tuple(range(1, 71))
ENOUGH_STEPS = 12


class KilledError(BaseException):
    """Nothing of the agent catches it, as nothing catches a kill."""


class Killer:
    """Raises before the n-th change of disk or storage; 0: never, and counts."""

    def __init__(self, number: int) -> None:
        self.number, self.seen = number, 0

    def before(self) -> None:
        """Called before every change."""
        self.seen += 1
        if self.seen == self.number:
            raise KilledError


@contextmanager
def killing(
    killer: Killer, federation: SimulatedFederation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Changes of disk are new names, removed names and files that take their name at once."""
    with monkeypatch.context() as patch:
        for name in ("replace", "unlink", "open"):
            patch.setattr(os, name, _counted(getattr(os, name), killer, name))
        inbox = federation.inbox("silo-a")
        inbox.before = lambda operation, _: killer.before() if "put" in operation else None
        try:
            yield
        finally:
            inbox.before = lambda operation, _: None


def _counted(real: Any, killer: Killer, name: str) -> Any:
    def changed(*arguments: Any, **options: Any) -> Any:
        is_new = name != "open" or (len(arguments) > 1 and arguments[1] & os.O_EXCL)
        if is_new:
            killer.before()
        return real(*arguments, **options)

    return changed


def charges(silo: SimulatedSilo) -> list[Charged]:
    path = PrivacyLedger(silo.home).path
    if not path.exists():
        return []
    return [each for _, each in LedgerLines.read(path.read_bytes()).charges()]


def is_done(silo: SimulatedSilo) -> bool:
    return "submission" in silo.kinds()


def play(
    federation: SimulatedFederation, killer: Killer, monkeypatch: pytest.MonkeyPatch
) -> list[list[Charged]]:
    """What the ledger held after each step of `silo-a`, the only one that acts."""
    silo, seen = federation.silos["silo-a"], []
    federation.open(1)
    with killing(killer, federation, monkeypatch):
        for _ in range(ENOUGH_STEPS):
            with suppress(KilledError):
                silo.act(FEDERATION, federation.pinned)
            seen.append(charges(silo))
    return seen


def require_one_charge(silo: SimulatedSilo, seen: list[list[Charged]]) -> None:
    assert silo.faults == []
    assert is_done(silo)
    counts = [len(each) for each in seen]
    assert counts == sorted(counts), "no charge was ever taken off"
    assert counts[-1] == 1
    totals = {each.epsilon_lifetime for found in seen for each in found}
    assert len(totals) == 1
    assert len(set(silo.secrets)) == 1, "the same noise on the same sums"
    assert list((silo.home / PRIVACY / SECRETS).glob("*")) == []
    lines = PrivacyLedger(silo.home).read()
    assert [lines.closed(line.number) is not None for line, _ in lines.charges()] == [True]


def tight(make: MakeFederation) -> SimulatedFederation:
    """A federation whose budgets hold one training and no second."""
    federation = private(make)
    silo = federation.silos["silo-a"]
    # 2 of 80 records in each of 2 steps, rounded up.
    silo.contract.privacy = budget("silo-a", epsilon="0.4")
    return federation


def test_there_are_as_many_places_to_be_killed_as_are_tried(
    make_federation: MakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation, killer = tight(make_federation), Killer(0)
    seen = play(federation, killer, monkeypatch)
    require_one_charge(federation.silos["silo-a"], seen)
    assert killer.seen <= max(ALL_KILLS), killer.seen


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(n, marks=[] if n in FIRST_KILLS else pytest.mark.long)
        for n in sorted({*FIRST_KILLS, *ALL_KILLS})
    ],
)
def test_killed_before_any_change_it_is_charged_once(
    make_federation: MakeFederation, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    federation = tight(make_federation)
    seen = play(federation, Killer(number), monkeypatch)
    require_one_charge(federation.silos["silo-a"], seen)


def test_a_lost_outbox_gets_no_second_training_of_the_same_plan(
    make_federation: MakeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = tight(make_federation)
    silo = federation.silos["silo-a"]
    play(federation, Killer(0), monkeypatch)
    for path in (silo.home / "outbox").rglob("*.json"):
        path.unlink()
    objects = federation.inbox("silo-a").objects
    for key in [key for key in objects if key.startswith("rounds/")]:
        del objects[key]
    trained = silo.trainings
    silo.act(FEDERATION, federation.pinned)
    assert silo.kinds() == {"refusal", "blobs"}
    assert silo.trainings == trained
    assert len(charges(silo)) == 1


def test_a_home_that_was_put_back_trains_nothing_and_says_so(
    make_federation: MakeFederation,
) -> None:
    federation = private(make_federation)
    silo = federation.silos["silo-a"]
    older = federation.directory / "older"
    shutil.copytree(silo.home, older)
    federation.play(federation.open(1))
    assert len(charges(silo)) == 1
    shutil.rmtree(silo.home)
    shutil.move(older, silo.home)
    trained = silo.trainings
    federation.open(2)
    for _ in range(4):
        silo.act(FEDERATION, federation.pinned)
    assert silo.trainings == trained
    assert charges(silo) == []
    assert any("no charge for a statement about of-silo-a" in each for each in silo.faults)
    assert any("catch-up" in each for each in silo.faults)


def test_an_agent_does_not_start_on_a_ledger_that_was_put_back(
    make_federation: MakeFederation,
) -> None:
    federation = private(make_federation)
    silo = federation.silos["silo-a"]
    federation.play(federation.open(1))
    PrivacyLedger(silo.home).path.unlink()
    with pytest.raises(SiloOperatorError, match="it never gets shorter"):
        run_agent(silo.agent(FEDERATION, federation.pinned))
    require_reading(silo.home, federation.clock.now())
    silo.act(FEDERATION, federation.pinned)
    assert len(charges(silo)) == 1, "made again of its mark and of what was signed"
    assert silo.faults == []


def test_catching_up_takes_back_what_was_signed_and_the_round_goes_on(
    make_federation: MakeFederation,
) -> None:
    federation = private(make_federation)
    silo = federation.silos["silo-a"]
    older = federation.directory / "older"
    shutil.copytree(silo.home, older)
    federation.play(federation.open(1))
    total = charges(silo)[0].epsilon_lifetime
    shutil.rmtree(silo.home)
    shutil.move(older, silo.home)
    require_reading(silo.home, federation.clock.now())
    plan = federation.open(2)
    federation.play(plan)
    assert silo.faults == []
    found = charges(silo)
    assert [each.entries for each in found] == [1, 2]
    assert found[0].epsilon_lifetime == total
    assert found[1].epsilon_lifetime > total
    admitted = federation.look(plan).attempt.close
    assert admitted is not None
    assert "silo-a" in {item.silo for item in admitted.record.admitted}
