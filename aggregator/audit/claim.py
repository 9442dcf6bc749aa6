"""One line of an audit."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["pass", "fail", "not checked"]
Finding = tuple[Outcome, str]
"""What becomes of a claim, and the sentence that says so."""


@dataclass(frozen=True)
class Claim:
    """One thing that the report asserts, and whether it holds; `detail` is a sentence."""

    name: str
    outcome: Outcome
    detail: str
