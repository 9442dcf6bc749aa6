"""What the people of the silo are told of a personal adapter, in words."""

from silo_agent.personal.kept import Compared, PersonalFacts
from silo_agent.personal.own_factors import OwnAdapter


def losses_words(facts: PersonalFacts) -> str:
    """Its losses, and for which share of prompts it acts."""
    measures = facts.measures
    words = (
        f"{measures.used.nats:.4f} nats per token on {measures.used.tokens} held-out answer "
        f"tokens ({facts.method}, {facts.steps} steps)"
    )
    if measures.frozen_alone is not None:
        words += (
            f"; it acts on {measures.chosen_for:.0%} of the prompts, on all of them "
            f"{measures.own.nats:.4f}, on none {measures.frozen_alone.nats:.4f}"
        )
    return words


def made_for_words(facts: PersonalFacts) -> str:
    """Of which round it is, and for which adapter of it."""
    words = f"round {facts.round} of {facts.run}"
    return f"{words}, for what it published" if facts.made_for == "published" else words


def own_words(own: OwnAdapter) -> str:
    """Of which rounds the A of all and this silo's own B are."""
    words = f"round {own.round} of {own.facts.run}: the A of all with this silo's own B"
    return words if own.facts.round == own.round else f"{words} of round {own.facts.round}"


def compared_words(personal: float, others: Compared) -> str:
    """Its loss beside those of the others, in nats per token."""
    words = f"{personal:.4f} nats per token with the personal adapter"
    words += f", {others.everybody:.4f} with the one for all"
    if others.silo_only is not None:
        words += f", {others.silo_only:.4f} with own data only"
    return f"{words}, {others.base:.4f} with the base model alone (lower is better)"


def status_words(facts: PersonalFacts) -> str:
    """The newest one in a line, as far as it is known."""
    words = (
        losses_words(facts)
        if facts.compared is None
        else compared_words(facts.measures.used.nats, facts.compared)
    )
    return f"{made_for_words(facts)}: {words}"
