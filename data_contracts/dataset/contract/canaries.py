"""Records of nobody that a silo may plant among those that it trains on, as a contract says it."""

from typing import Annotated, Literal

from pydantic import Field

from data_contracts.dataset.contract.closed_terms import Terms

PLANTABLE_FORMS = ("instruction", "chat", "text")
"""Forms of records that can hold a random secret."""

CanaryForm = Literal["digits", "letters"]


class Canaries(Terms):
    """So many records with a random secret of digits or letters, each in so many `copies`.

    They show how well a model can be made to tell one of its records (Carlini et al. 2019, "The
    Secret Sharer", USENIX Security). The silo draws them; a contract names no secret.
    """

    number: Annotated[int, Field(ge=2, le=64)]
    form: CanaryForm = "digits"
    copies: Annotated[int, Field(ge=1, le=100)] = 4
