"""`silo-agent disk`: what lies in a silo's home, and its pruning by hand."""

from rich.console import Console

from data_contracts.shown_text import size_text
from infra.disk.display import DiskPart, show_disk
from infra.disk.own_files import usage_of_all
from silo_agent.assembly import FEED
from silo_agent.compression.sent_adapter import STATE_DIRECTORY
from silo_agent.contribution.coalition_measuring import DIRECTORY as COALITIONS
from silo_agent.federation.global_adapters import GLOBAL_ADAPTERS
from silo_agent.gate.contract_gate import GATE_DIRECTORY, SPLITS_DIRECTORY
from silo_agent.home.agent_disk import prune_between_steps, silo_disk
from silo_agent.home.disk_pruning import surplus
from silo_agent.loop import only_agent
from silo_agent.personal.kept import PERSONAL
from silo_agent.personal.own_factors import OWN_FACTORS
from silo_agent.release.outbox import OUTBOX
from silo_agent.silo import Silo
from silo_agent.training.jobs import SILO_ONLY, WORK

SILO_DISK = (
    DiskPart("data gate's outcomes", (str(GATE_DIRECTORY),), "the contract's retention"),
    DiskPart(
        "training and held-out records, and their tokens",
        (str(SPLITS_DIRECTORY),),
        "the contract's retention",
    ),
    DiskPart("training, with checkpoints", (WORK,), "[disk] keep_rounds; checkpoints: the round"),
    DiskPart("outbox", (OUTBOX,), "[disk] keep_rounds"),
    DiskPart("silo-only adapters", (SILO_ONLY,), "[disk] keep_rounds"),
    DiskPart("personal adapters", (PERSONAL,), "[disk] keep_rounds"),
    DiskPart("own factors B", (OWN_FACTORS,), "[disk] keep_rounds"),
    DiskPart("federation's adapters", (GLOBAL_ADAPTERS, COALITIONS), "the round"),
    DiskPart("what compression left unsent", (STATE_DIRECTORY,), "the run"),
    DiskPart("feed", (str(FEED),), "always"),
)


def show_silo_disk(console: Console, silo: Silo) -> None:
    """By part, as far as the agent has followed the feed."""
    goes = usage_of_all(surplus(silo_disk(silo, silo.feed.last_seen())))
    show_disk(console, silo.config.home, SILO_DISK, goes)


def prune_disk(silo: Silo) -> str:
    """Remove what no round needs; SiloOperatorError while an agent runs, which does so itself."""
    with only_agent(silo.config.home):
        silo.gate.forget_unused()
        removed = prune_between_steps(silo, silo.feed.last_seen())
    return f"removed {removed.usage.files:,} files, {size_text(removed.usage.size)}"
