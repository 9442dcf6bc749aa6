"""What a rights holder says, and signs, about a filter of keyed tiles of its texts.

It names the texts by nothing but counts: no title, no word, no digest of a text. The key that the
tiles were made with is named by an id from which it cannot be computed.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.base import Record
from data_contracts.protocol.wire_types import (
    Count,
    DecimalString,
    Digest,
    Instant,
    PositiveCount,
    RuleId,
    Text,
)

WordCount = Annotated[int, Field(ge=1, le=1000)]


class CopyrightRegistry(Record):
    """The manifest of one registry.

    A tile is a run of `words_per_tile` words; of each text the tiles at every `stride`-th word were
    stored, `tiles` distinct ones in all, in a filter of `filter_bits` bits. `texts_without_tile`
    counts the texts that are too short for one and are therefore not protected. `error_rate` is the
    chance, 0 to 1, that the filter finds a tile that is not in it.
    """

    kind: ClassVar[str] = "copyright-registry"

    name: RuleId
    rights_holder: Text
    words_per_tile: WordCount
    stride: WordCount
    normaliser: RuleId
    hash_scheme: RuleId
    texts: PositiveCount
    texts_without_tile: Count
    tiles: PositiveCount
    filter_bits: PositiveCount
    error_rate: DecimalString
    key_id: Digest
    filter: ArtifactRef
    expires_at: Instant
