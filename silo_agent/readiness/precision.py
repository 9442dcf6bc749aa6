"""Readiness of how a model is held while it trains: precision, and base weights that are quantised.

Slow is a warning: it trains all the same, in more time.
"""

from silo_agent.readiness.checklist import Item, of_fault, there, tried
from silo_agent.readiness.facts import Facts
from silo_agent.training.precision import held_words, lacks_bfloat16
from silo_agent.training.quantisation import require_quantisation

NAME = "precision"


def precision(facts: Facts) -> Item:
    """What is trained in and why; may measure for a few seconds, once."""
    training = facts.config.training
    lacking = tried(lambda: require_quantisation(training))
    if lacking is not None:
        return of_fault(NAME, lacking)
    detail = held_words(facts.config)
    is_slow = training.device == "cpu" and training.precision == "bfloat16" and lacks_bfloat16()
    if not is_slow:
        return there(NAME, detail)
    found = f"{detail}; this processor has no instructions for it, and computes it slowly"
    return Item(NAME, "warning", found, 'set precision = "auto" in silo-agent.toml')
