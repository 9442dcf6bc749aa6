"""Confidential mode in `federation.toml`: how many silos a sum needs, and time between words."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from aggregator.settings.values import Minutes, Positive
from data_contracts.protocol.records.masking_terms import MOST_MASKED_SILOS
from infra.disk.toml_files import TomlTable

MASKED_RULE = "average"


def masked_merge(given: Mapping[str, object]) -> dict[str, object]:
    """[merge] in confidential mode where `given` is set; see docs/decisions/0045."""
    merge: dict[str, object] = {"rule": MASKED_RULE, "compression": "none"} | dict(given)
    ball = {"name": "heavy_ball"} if merge["rule"] == "average" else None
    return {"optimizer": ball} | merge


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
