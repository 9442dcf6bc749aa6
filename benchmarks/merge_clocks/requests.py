"""Requests to storage for one look of the coordinator at a round, and for one poll of a silo.

Counted on the simulated federation, whose buckets are in memory: a listing or a read is a request,
and a listing of more than a thousand keys would be more than one. The look is that of
`consortia round watch`, from a process that has looked before, while one silo still trains and the
others have submitted; the poll is that of one of those. Round N stands after N - 1 reported ones
and as many new memberships.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from aggregator.decisions.stage import Stage
from aggregator.federated_round import advance
from flows.round.watch import view_round
from silo_agent.agent import poll_once
from silo_agent.steps.own_attempt import Step
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.silo import SimulatedSilo
from tests.tiny_model import make_tiny_model


def main() -> None:
    """Print `{"coordinator": ..., "silo": ...}` on the last line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--silos", type=int, required=True)
    parser.add_argument("--round", type=int, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = counted(Path(directory), arguments.silos, arguments.round)
        sys.stdout.write(f"{json.dumps(found)}\n")


def counted(directory: Path, silos: int, round_number: int) -> dict[str, int]:
    """Requests of one look and of one poll in that round."""
    model = make_tiny_model(directory / "model")
    federation = SimulatedFederation(directory, model)
    for number in range(silos):
        federation.add_silo(f"silo-{number:03d}")
    federation.found()
    for earlier in range(1, round_number):
        _finish(federation, earlier)
        federation.change(silos=federation.pinned.record.silos)
    federation.open(round_number)
    *submitted, training = federation.silos.values()
    for _ in range(3):
        for silo in submitted:
            silo.act(FEDERATION, federation.pinned)
    for _ in range(2):
        training.act(FEDERATION, federation.pinned)
    return {"coordinator": _look(federation), "silo": _poll(federation, submitted[0])}


def _finish(federation: SimulatedFederation, round_number: int) -> None:
    plan = federation.open(round_number)
    while advance(federation.coordinator(), plan) is not Stage.REPORTED:
        federation.silos_act()
        federation.clock.sleep(20)


def _look(federation: SimulatedFederation) -> int:
    c = federation.coordinator()
    view = view_round(c)
    if view.stage is not Stage.COLLECTING:
        raise SystemExit(f"expected a round that still collects, found {view.stage}")
    return _requests(federation, lambda: view_round(c))


def _poll(federation: SimulatedFederation, silo: SimulatedSilo) -> int:
    agent = silo.agent(FEDERATION, federation.pinned)
    if poll_once(agent) is not Step.WAITING:
        raise SystemExit(f"expected a silo that has submitted, found {silo.faults}")
    return _requests(federation, lambda: poll_once(agent))


def _requests(federation: SimulatedFederation, action: Callable[[], object]) -> int:
    requests: list[str] = []
    for bucket in federation.storage.values():
        bucket.before = lambda operation, _key: requests.append(operation)
    action()
    for bucket in federation.storage.values():
        bucket.before = None
    return len(requests)


if __name__ == "__main__":
    main()
