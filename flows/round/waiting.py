"""What the next round waits for: contracts in force, the runner, the schedule, or a fault.

`cohort_of` and `runner_of` look; `waiting_lines` says it. Storage that does not answer is an error,
as it is for a round; a Prefect that does not answer is one of the things waited for.
"""

from dataclasses import dataclass
from pathlib import Path

from aggregator.coordinator import CONTRACTS_DIRECTORY, Coordinator, load_coordinator
from aggregator.feed.reading import next_round, read_federation
from aggregator.planning.agreed_contracts import read_agreed
from aggregator.settings.federation import FederationSettings
from data_contracts.errors import ConsortiaError, FederationOperatorError
from flows.deployment.runner import Runner, runner_lines
from infra.terminal import command


@dataclass(frozen=True)
class Cohort:
    """Silos of the next round whose contracts are in force, and why others are left out."""

    round_number: int
    ready: tuple[str, ...]
    left_out: dict[str, str]


def cohort_of(c: Coordinator) -> Cohort:
    """Who could take part in the next round as of now."""
    feed = read_federation(c)
    number = next_round(c, feed)
    agreed = read_agreed(c.settings.home / CONTRACTS_DIRECTORY, feed, c.clock.now())
    members = feed.membership.record.silos_of_round(number)
    ready = tuple(silo for silo in members if silo in agreed.digests)
    why = {s: agreed.left_out.get(s, "no contract") for s in members if s not in ready}
    return Cohort(number, ready, why)


def runner_of(settings: FederationSettings) -> Runner:
    """Ask Prefect; never raises for what Prefect does not answer."""
    from flows.deployment.prefect_settings import use_prefect_of

    try:
        use_prefect_of(settings)
        from flows.deployment.state import read_runner

        return read_runner(settings)
    except FederationOperatorError as error:
        return Runner(fault=str(error))


def what_is_waited_for(c: Coordinator) -> list[str]:
    """`waiting_lines` as of now."""
    return waiting_lines(c.settings, cohort_of(c), runner_of(c.settings))


def next_round_number(home: Path) -> int | None:
    """The round that a flow run would begin with; None where storage does not say."""
    try:
        c = load_coordinator(home)
        return next_round(c, read_federation(c))
    except ConsortiaError:
        return None


def waiting_lines(settings: FederationSettings, cohort: Cohort, runner: Runner) -> list[str]:
    """What is there, what is missing, and the next command; one line each, to be pasted."""
    return [
        f"round {cohort.round_number} of {settings.run} has no plan yet.",
        *_about_silos(settings, cohort),
        *runner_lines(settings.home, runner),
    ]


def _about_silos(settings: FederationSettings, cohort: Cohort) -> list[str]:
    needed = max(settings.round.quorum, settings.round.evaluation_quorum)
    lines = [f"contracts in force: {', '.join(cohort.ready) or 'none'}"]
    for silo, why in sorted(cohort.left_out.items()):
        filed = settings.home / CONTRACTS_DIRECTORY / f"{silo}.yaml"
        lines.append(f"left out: {silo}, {why}. After the silo has signed its contract:")
        sign = ("consortia", "contract", "sign", filed, "--home", settings.home)
        lines.append(command(*sign, "--silo", silo))
    if len(cohort.ready) < needed:
        lines.append(f"A round needs {needed} silos with a contract in force; it waits for more.")
        if not cohort.left_out:
            lines.append("Add silos with `consortia federation add-silo`.")
    return lines
