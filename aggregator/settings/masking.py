"""Confidential mode in `federation.toml`: how many silos a sum needs, and time between words."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from aggregator.settings.values import Minutes, Positive
from data_contracts.protocol.records.masking_terms import MOST_MASKED_SILOS
from infra.disk.toml_files import TomlTable

MASKED_MERGE = {"rule": "average", "compression": "none"}
"""[merge] in confidential mode, as far as it is not set."""


class MaskingSection(TomlTable):
    """See `data_contracts.protocol.records.masking_terms.MaskingTerms`.

    `threshold` None: the fewest that are allowed, more than two thirds of the cohort, or the quorum
    of `[round]` where that is more. `key_minutes` are from the plan, and the check of the data is
    among them; None: a quarter of `round.submit_minutes`. `share_minutes` follow; None: an eighth.
    `reveal_minutes` are from the deadline for submissions on; None: `round.evaluate_minutes`.
    """

    threshold: Annotated[int, Field(ge=2, le=MOST_MASKED_SILOS)] | None = None
    key_minutes: Minutes | None = None
    share_minutes: Minutes | None = None
    reveal_minutes: Minutes | None = None
    largest_change: Annotated[Positive, Field(le=1_000_000)] = Decimal("1")
    clip_norm: Annotated[Positive, Field(le=1_000_000)] | None = None
