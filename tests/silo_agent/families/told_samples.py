"""Records told to a model of a family, as the cache of tokens has them told."""

from pathlib import Path
from typing import Any

from data_contracts.dataset.forms import FORMS
from data_contracts.protocol.records.round_plan import ANY_DAY
from silo_agent.training.ranks.families.family import Family, Telling
from silo_agent.training.ranks.packed_sequence import PackedSequence


def told(
    family: Family, tokenizer: Any, model_dir: Path, form: str, record: Any, room: int = 64
) -> Any:
    """The pieces of one record."""
    encoder = family.encoder(tokenizer, Telling(model_dir, ANY_DAY, room))
    (pieces,) = FORMS[form].told([record], encoder)
    return pieces


def whole(token_ids: list[int]) -> PackedSequence:
    """A sequence of one record, all of which carries loss."""
    return PackedSequence(list(token_ids), list(token_ids), list(range(len(token_ids))))
