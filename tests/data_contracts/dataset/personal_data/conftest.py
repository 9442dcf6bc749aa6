"""Real mails and speeches, and Presidio alone, for the tests of this package."""

import pytest

from data_contracts.dataset.personal_data.presidio_engine import PresidioEngine
from tests.real_packages import spam_assassin_mails as spam_assassin_mails
from tests.real_packages import state_of_the_union_texts as state_of_the_union_texts


@pytest.fixture(scope="session")
def presidio_alone() -> PresidioEngine:
    """Presidio without the prefilter."""
    return PresidioEngine()
