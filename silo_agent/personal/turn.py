"""What this agent need not look at again about personal adapters, by digest of the plan."""

from dataclasses import dataclass, field


@dataclass
class PersonalTurn:
    """Where a personal adapter was given up, and where a decision about shared factors is known;
    an agent that is started again looks once more."""

    given_up: set[str] = field(default_factory=set)
    decided: set[str] = field(default_factory=set)
