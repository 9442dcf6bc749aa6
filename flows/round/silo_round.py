"""A silo's round as a Prefect flow, for a silo that wants its own history on its own loopback.

It wraps `silo_agent.agent.run_round`, which is plain Python; the coordinator's Prefect and this
one never reach each other. A storage that is away is waited for, see `flows.round.storage_outage`.
"""

from pathlib import Path

from prefect import flow, get_run_logger

from flows.round.storage_outage import OutageWait
from silo_agent.agent import run_round
from silo_agent.assembly import assemble_silo
from silo_agent.loop import only_agent


@flow(name="silo-round", validate_parameters=True)
def silo_round(home: str) -> str:
    """Take part in the newest round with the agent's home directory; returns the last step."""
    with only_agent(Path(home)):
        silo = assemble_silo(Path(home))
        storage = OutageWait(silo.clock, lambda line: get_run_logger().warning("%s", line))
        step = storage.through(None, lambda: run_round(silo))
    return step.value if step is not None else "no round concerns this silo"
