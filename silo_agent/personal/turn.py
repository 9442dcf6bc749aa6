"""Where this agent has given a personal adapter up, so that it is not tried at each look."""

from dataclasses import dataclass, field


@dataclass
class PersonalTurn:
    """Digests of plans; an agent that is started again tries once more."""

    given_up: set[str] = field(default_factory=set)
