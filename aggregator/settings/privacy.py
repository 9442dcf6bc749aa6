"""Differentially private training in `federation.toml`."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from aggregator.settings.values import Positive
from data_contracts.protocol.records.privacy_terms import PrivacyTerms, PrivacyUnit
from data_contracts.protocol.wire_types import PositiveCount
from infra.disk.toml_files import TomlTable


class PrivacySection(TomlTable):
    """See `data_contracts.protocol.records.privacy_terms.PrivacyTerms`.

    How many units a step draws on average is `recipe.sequences_per_step`. Delta is the silos', of
    their data contracts.
    """

    unit: PrivacyUnit
    clipping_norm: Annotated[Positive, Field(le=1_000_000)]
    noise_multiplier: Annotated[Positive, Field(ge=Decimal("0.01"), le=1_000)]
    records_per_unit: PositiveCount = 1

    @property
    def terms(self) -> PrivacyTerms:
        """As plans name them."""
        return PrivacyTerms(**self.model_dump())
