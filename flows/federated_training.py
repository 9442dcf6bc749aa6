"""Rounds one after another until a stop rule says enough."""

from pathlib import Path

from prefect import flow, get_run_logger

from aggregator.coordinator import load_coordinator
from aggregator.federated_round import finish_latest_report
from aggregator.federation_feed import next_round, read_federation
from flows.federated_round import RETRIES, federated_round

MAX_HELD_IN_A_ROW = 3


@flow(name="federated-training", validate_parameters=True, retries=RETRIES, retry_delay_seconds=30)
def federated_training(home: str, until_round: int | None = None) -> list[dict[str, str]]:
    """Run rounds up to and including `until_round`; without it, one round (a scheduled night).

    Stops early when a round was aborted in every attempt that the settings allow, or when
    candidates were held three times in a row: more rounds would only repeat that.
    """
    log = get_run_logger()
    c = load_coordinator(Path(home))
    finish_latest_report(c)
    results: list[dict[str, str]] = []
    attempts = held = 0
    last = until_round or next_round(c, read_federation(c))
    while (number := next_round(c, read_federation(c))) <= last:
        result = federated_round(home, number)
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
