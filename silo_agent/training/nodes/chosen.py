"""Which launcher a silo's configuration names."""

from functools import partial
from pathlib import Path

from silo_agent.config import SiloConfig
from silo_agent.nodes_settings import NodesSection
from silo_agent.training.nodes.hosts import Hosts, read_hostfile
from silo_agent.training.nodes.kubernetes import Kubernetes
from silo_agent.training.nodes.node_launcher import NodeLauncher
from silo_agent.training.nodes.several_nodes import SeveralNodes
from silo_agent.training.nodes.slurm import Slurm
from silo_agent.training.processes.machine_launch import Launcher, ThisMachine


def chosen_launcher(config: SiloConfig, directory: Path) -> Launcher:
    """The launcher of this silo's ranks, whose logs go into `directory`, below the home."""
    nodes = config.training.nodes
    return ThisMachine() if nodes is None else several_nodes(config, nodes, directory)


def several_nodes(config: SiloConfig, nodes: NodesSection, directory: Path) -> SeveralNodes:
    """The launcher for `nodes` of the configuration."""
    return SeveralNodes(nodes, partial(node_launcher, config, nodes), directory)


def node_launcher(config: SiloConfig, nodes: NodesSection, logs: Path) -> NodeLauncher:
    """The launcher of nodes, whose logs go into `logs`.

    SiloOperatorError where the hostfile cannot be used.
    """
    training, ranks, name = config.training, config.training.ranks_per_machine, config.silo
    threads, device = training.threads_per_rank, training.device
    if nodes.launcher == "slurm":
        options = nodes.slurm.options
        return Slurm(f"consortia-{name}", nodes.count, ranks, threads, device, options, logs)
    if nodes.launcher == "kubernetes" and nodes.kubernetes is not None:
        kubernetes = nodes.kubernetes
        return Kubernetes(f"consortia-{name}", nodes.count, ranks, threads, device, kubernetes)
    hosts = read_hostfile(config.path(nodes.hosts.hostfile), nodes.count, ranks)
    return Hosts(nodes.hosts.remote, hosts, logs)
