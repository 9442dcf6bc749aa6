"""Captions of pictures as token ids, for the families that see pictures."""

from collections.abc import Sequence

from silo_agent.training.ranks.conversation import ChatTokenizer, Conversation
from silo_agent.training.ranks.families.family import FamilyEncoder, Told
from silo_agent.training.ranks.plain_text import PlainIds, around
from silo_agent.training.ranks.record_text import RecordText


class Captions(FamilyEncoder):
    """One caption for each picture, as the tokenizer encloses it; a family names itself."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._ids = PlainIds(RecordText(tokenizer))
        self._begin, self._end = around(tokenizer)

    def captions(self, records: Sequence[str]) -> list[Told]:
        """One piece each; None where nothing of it can be told."""
        return [(self._told(*found),) for found in self._ids.of_many(records)]

    def _told(self, ids: list[int] | None, spells: bool) -> Conversation | None:
        if not ids:
            return None
        whole = [*self._begin, *ids, *self._end]
        return Conversation(whole, whole, spells)
