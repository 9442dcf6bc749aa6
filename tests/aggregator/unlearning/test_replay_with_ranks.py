"""As the simulated replay, with real records, gates and ranks: the same bytes once more."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aggregator.settings.federation import PublicationSection
from aggregator.settings.merge import MergeSection
from tests.aggregator.unlearning.story import Story
from tests.data_contracts.dataset.forms.form_samples import CHAT, chat_record
from tests.silo_agent.training_silo import add_training_silo
from tests.simulator.fake_clock import FakeClock

pytestmark = pytest.mark.long

RECORDS = 40
FIRST_RECORD = {"silo-a": 0, "silo-b": 100, "silo-x": 200}


class RanksStory(Story):
    """Each silo has records of its own, and a rank that trains on them."""

    def __init__(self, directory: Path, model: Path, ended: ExitStack, **fields: Any) -> None:
        self.ended = ended
        super().__init__(directory, model, **fields)
        settings = self.federation.settings
        changed = {
            "recipe": settings.recipe.model_copy(update={"sequence_length": 64}),
            "publication": PublicationSection(max_mean_increase=5, max_silo_increase=5),
        }
        self.federation.settings = settings.model_copy(update=changed)

    def add(self, name: str) -> None:
        """With its contract and its records."""
        first = FIRST_RECORD[name]
        rows = [chat_record(number) for number in range(first, first + RECORDS)]
        silo = add_training_silo(self.federation, name, CHAT, rows)
        self.ended.callback(silo.end_ranks)


@pytest.fixture
def stories(tmp_path: Path, tiny_model: Path) -> Iterator[tuple[RanksStory, RanksStory]]:
    """One that silo-x joins, and one that it never does."""
    with ExitStack() as ended:
        made = [
            RanksStory(
                tmp_path / name,
                tiny_model,
                ended,
                # Deadlines of training are by the clock of the machine.
                clock=FakeClock(datetime.now(UTC)),
                merge=MergeSection(compression="none"),
            )
            for name in ("with", "never")
        ]
        yield made[0], made[1]


def test_ranks_that_train_again_send_what_they_would_have_sent(
    stories: tuple[RanksStory, RanksStory],
) -> None:
    story, never = stories
    first = story.published(story.next())
    story.joins()
    old = story.published(story.next())
    story.leaves()
    story.unlearn()
    again = story.published(story.next())
    without = [never.published(never.next()) for _ in range(2)]
    assert None not in without
    assert [first, again] == without
    assert old not in without
