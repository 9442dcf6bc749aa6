"""Rounds one after another until a stop rule says enough."""

from pathlib import Path

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from aggregator.coordinator import Coordinator, load_coordinator
from aggregator.federated_round import finish_latest_report
from aggregator.feed.reading import next_round, read_federation
from data_contracts.errors import StorageError
from flows.deployment.resumed_runs import LastRound, remember_last_round, resume_crashed
from flows.round.federated_round import RETRIES, federated_round, outage_wait

MAX_HELD_IN_A_ROW = 3
RETRY_SECONDS = 30


@flow(name="federated-training", validate_parameters=True, on_crashed=[resume_crashed])
def federated_training(home: str, until_round: int | None = None) -> list[dict[str, str]]:
    """Run rounds up to and including `until_round`; without it, one round (a scheduled night).

    Stops early when a round was aborted in every attempt that the settings allow, or when
    candidates were held three times in a row: more rounds would only repeat that. A storage that is
    away is waited for; after other faults a round is gone on with up to three times.
    """
    log = get_run_logger()
    c = load_coordinator(Path(home))
    storage = outage_wait(c)
    storage.through(None, lambda: finish_latest_report(c))

    def upcoming() -> int:
        return storage.through(None, lambda: next_round(c, read_federation(c)))

    results: list[dict[str, str]] = []
    attempts = held = 0
    last = until_round or upcoming()
    remember_last_round(c.settings.home, LastRound(str(flow_run.id), last))
    while (number := upcoming()) <= last:
        result = _round(c, home, number)
        results.append(result)
        attempts = attempts + 1 if result["outcome"] == "aborted" else 0
        held = held + 1 if result["outcome"] == "held" else 0
        if attempts >= c.settings.round.max_attempts:
            log.error("round %d was aborted in %d attempts: stopping", number, attempts)
            break
        if held >= MAX_HELD_IN_A_ROW:
            log.error("the candidates of %d rounds in a row were held: stopping", held)
            break
    return results


def _round(c: Coordinator, home: str, number: int) -> dict[str, str]:
    """One round, gone on with after a fault; where storage failed it, that was waited for."""
    for _ in range(RETRIES):
        try:
            return federated_round(home, number)
        except StorageError:
            raise
        except Exception as error:
            get_run_logger().exception("%s", error)
            c.clock.sleep(RETRY_SECONDS)
    return federated_round(home, number)
