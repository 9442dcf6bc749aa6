"""Readiness of the nodes that train together: each is asked whether it could do its part."""

from data_contracts.errors import ConsortiaError
from silo_agent.readiness.checklist import Item, of_fault, there, tried
from silo_agent.readiness.facts import Facts
from silo_agent.training.nodes.chosen import several_nodes
from silo_agent.training.nodes.group import NotComeError
from silo_agent.training.processes.machine_launch import GroupShape
from silo_agent.training.trainer import RANKS

NAME = "nodes"


def nodes(facts: Facts) -> list[Item]:
    """Nothing where one machine trains. A queue that has not come to the nodes yet is no fault; a
    node that does not come with the others is."""
    config, training = facts.config, facts.config.training
    if training.nodes is None:
        return []
    policy = facts.policy.policy
    models = [config.path(model.path) for model in policy.models] if policy is not None else []
    launcher = several_nodes(config, training.nodes, config.home / RANKS)
    threads = training.threads_per_rank
    shape = GroupShape(config.home, training.device, training.ranks, threads)
    found = tried(lambda: launcher.check(shape, (config.home, *models)))
    if isinstance(found, NotComeError) and training.nodes.launcher != "hosts":
        detail = f"{found.problem}: expected {found.expected}; found {found.found}"
        return [Item(NAME, "warning", detail, found.action)]
    if isinstance(found, ConsortiaError):
        return [of_fault(NAME, found)]
    each = f"{training.ranks_per_machine} ranks each"
    detail = (
        f"{', '.join(found)} by {training.nodes.launcher}, {each}, over {training.nodes.interface}"
    )
    return [there(NAME, f"{detail}; all see {config.home}")]
