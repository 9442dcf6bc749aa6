"""What a leak check has measured of a local adapter: counts and shares, never a record."""

import math
from typing import Annotated

from pydantic import Field

from silo_agent.training.job_value import JobValue

CONTINUED_TOKENS = 32
"""So much of an answer comes back where a record is told verbatim (Carlini et al. 2023 take 50)."""
FEWEST_TOKENS = 8
"""An answer that is shorter says nothing: `yes` comes back without being remembered."""

Share = Annotated[float, Field(ge=0, le=1)]
Records = Annotated[int, Field(ge=0)]


class Membership(JobValue):
    """How well a score tells records that were trained on from held-out ones: `auc`, with the ends
    of its 95 % interval.

    The score of a record is how much training has lowered its loss per token, which leaves out how
    hard the record is (the calibrated attack of Watson et al. 2022, arXiv:2111.08440, with the
    starting adapter for a reference).
    """

    auc: Share
    low: Share
    high: Share


class Verbatim(JobValue):
    """How many records' answers come back token by token: `trained` of `of_trained` that were
    trained on, `heldout` of `of_heldout` that were not, of those that are long enough to say.

    `chance`: how likely so many of the trained are if training had nothing to do with it.
    """

    trained: Records
    of_trained: Records
    heldout: Records
    of_heldout: Records
    chance: Share

    @property
    def excess(self) -> float:
        """The share of the trained above that of the held-out ones."""
        return self.trained / max(1, self.of_trained) - self.heldout / max(1, self.of_heldout)


class Exposure(JobValue):
    """How much likelier planted canaries are to the model than candidates that are planted nowhere:
    in bits, the `mean` and the `highest` of those that were measured, `planted` of the `of_planted`
    that were trained on, held against so many `candidates`.

    A canary's exposure is log2 of how many there are, itself among them, above log2 of its rank by
    loss (Carlini et al. 2019, definition 5); of one that nobody remembers it is 1.4 on average.
    `chance`: how likely so high a mean is then.
    """

    planted: Records
    of_planted: Records
    candidates: Records
    mean: Annotated[float, Field(ge=0)]
    highest: Annotated[float, Field(ge=0)]
    chance: Share

    @property
    def most(self) -> float:
        """Bits that so many candidates can show."""
        return math.log2(self.candidates + 1)


class LeakFigures(JobValue):
    """Of one local adapter. `trained` and `heldout` are the records that were measured, of so many
    `trained_in_all` and `heldout_in_all`; fewer where `is_cut`, because `seconds` were over.

    `membership` is None where there are not two records on each side, `verbatim` where the family
    of the model does not continue text, `exposure` where no canary was planted.
    """

    trained: Records
    heldout: Records
    trained_in_all: Records
    heldout_in_all: Records
    is_cut: bool
    seconds: Annotated[float, Field(ge=0)]
    membership: Membership | None = None
    verbatim: Verbatim | None = None
    exposure: Annotated[Exposure | None, Field(exclude_if=lambda value: value is None)] = None

    @property
    def fewest(self) -> int:
        """Records on the side that has fewer."""
        return min(self.trained, self.heldout)
