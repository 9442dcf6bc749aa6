"""Each institution's adapter of its own, made after the last round as its silo operator makes it.

By the command of the product, in the institution's home, where it stays: `silo-agent personalise`.
It wants an agent that does not run, so the agents have to be stopped first.
"""

import sys
import time
from collections.abc import Mapping

from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records import RoundPlan
from flows.demo.layout import DemoPaths
from infra.processes.local_processes import start_process
from silo_agent.personal.kept import PersonalAdapter, PersonalAdapters

STEPS = 8
"""With fewer the hospitals' are not yet as good at home as their silo-only adapters."""
LOOK_SECONDS = 0.5


def make_own_adapter(paths: DemoPaths, plan: RoundPlan, silo: str, env: Mapping[str, str]) -> None:
    """Have a silo make its personal adapter for what the round of `plan` has published; one that is
    there already stays. Raises as `own_adapter`."""
    command = [sys.executable, "-m", "silo_agent.cli", "personalise", "--steps", str(STEPS)]
    command += ["--home", str(paths.silo(silo))]
    process = start_process(_name(silo), command, paths.stack, env=env)
    while process.is_running():
        time.sleep(LOOK_SECONDS)
    process.stop()
    own_adapter(paths, plan, silo)


def own_adapter(paths: DemoPaths, plan: RoundPlan, silo: str) -> PersonalAdapter:
    """The personal adapter of a silo for what the round of `plan` has published.

    Raises FederationOperatorError where there is none.
    """
    kept = PersonalAdapters(paths.silo(silo), plan.run).of_round(plan.round)
    if kept is None or kept.facts.made_for != "published":
        log = paths.stack / "logs" / f"{_name(silo)}.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        said = f"; the last line of {log} is: {lines[-1].strip()}" if lines else ""
        raise FederationOperatorError(
            f"personal adapter of {silo}",
            expected=f"one for the adapter that round {plan.round} of {plan.run} has published",
            found=f"none{said}",
            action="do what the log says, then run the demo again",
        )
    return kept


def _name(silo: str) -> str:
    return f"personalise-{silo}"
