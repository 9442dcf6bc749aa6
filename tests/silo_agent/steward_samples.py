"""A check as its steward reads it, of a silo over a real home directory."""

from silo_agent.gate.steward_view import ShownRule, StewardView, steward_view
from tests.silo_agent.gate_samples import SampleSilo


def view_of(silo: SampleSilo) -> StewardView:
    """What the silo's data give now."""
    gate = silo.gate
    return steward_view(gate, gate.check())


def rule_of(view: StewardView, rule: str, asked: str = "") -> ShownRule:
    """The one rule with this id; `asked` is a part of its sentence, where two share an id."""
    (found,) = [shown for shown in view.rules if shown.rule == rule and asked in shown.sentence]
    return found
