"""`silo-agent privacy`: what private trainings were charged, and what is left."""

from data_contracts.errors import DataStewardError
from infra.terminal import plain_console, say
from silo_agent.command_options import HERE, Home
from silo_agent.config import load_config
from silo_agent.gate.contract_gate import contract_gate
from silo_agent.privacy.ledger import PrivacyLedger
from silo_agent.privacy.spent import spent_lines
from silo_agent.release.outbox import OUTBOX, kept_statements

console = plain_console()


def privacy(home: Home = HERE) -> None:
    """Show what differential privacy was spent of each population, by training, and what is left.
    Nothing is changed."""
    config = load_config(home)
    lines = PrivacyLedger(config.home).peek(kept_statements(config.home / OUTBOX))
    try:
        budget = contract_gate(config).contract().terms.privacy
    except DataStewardError:
        budget = None
    say(console, *spent_lines(lines, budget))
