"""What a step drew as the sequences of one rank, and which part of its unit each record is.

A unit goes to one rank as a whole, which alone can cut its gradient. Where a unit is one record,
records of like lengths go together; where it is several, those of a unit follow one another, so
that a rank keeps the gradient of one unfinished unit at most.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from silo_agent.training.ranks.conversation import IGNORED
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.packing import PackedSequences, PackingRule
from silo_agent.training.ranks.private.clipping import Part
from silo_agent.training.ranks.private.draw import DrawnUnit
from silo_agent.training.ranks.token_shard import TokenShard


@dataclass(frozen=True)
class MicroBatch:
    """Sequences side by side; `parts` of all their records along the rows, and the units of which
    nothing follows."""

    sequences: tuple[PackedSequence, ...]
    parts: tuple[Part, ...]
    done: frozenset[int]


@dataclass(frozen=True)
class _Record:
    """A record that was chosen; `share` of its unit's gradient, the same for all of a unit."""

    unit: int
    place: int
    size: int
    seed: int
    share: float


def shared_out(units: Sequence[DrawnUnit], ranks: int) -> list[list[DrawnUnit]]:
    """For each rank some of the units, so that all have about as many tokens; maybe none."""
    found: list[list[DrawnUnit]] = [[] for _ in range(ranks)]
    tokens = [0] * ranks
    for unit in sorted(units, key=lambda each: (-each.tokens, each.unit)):
        rank = tokens.index(min(tokens))
        found[rank].append(unit)
        tokens[rank] += unit.tokens
    return found


def micro_batches(
    units: Sequence[DrawnUnit],
    shard: TokenShard,
    rule: PackingRule,
    size: int,
    *,
    draw: int,
) -> Iterator[MicroBatch]:
    """All that units put into a step, `size` sequences at a time; `draw`, not 0, is what is drawn
    for, beside the numbers of the records themselves."""
    records = [record for unit in units for record in _records(unit)]
    packed = _fitted(records, rule, one_open=any(len(unit.places) > 1 for unit in units))
    left = {unit.unit: len(unit.places) for unit in units}
    for start in range(0, len(packed), size):
        some = packed[start : start + size]
        made = [_made(shard, rule, each, draw) for each in some]
        parts: list[Part] = []
        for sequence, of_sequence in zip(made, some, strict=True):
            asked = sequence.record_answer_tokens
            for record, tokens in zip(of_sequence, asked, strict=True):
                parts.append(Part(record.unit, record.share / max(1, tokens)))
                left[record.unit] -= 1
        done = frozenset(part.unit for part in parts if not left[part.unit])
        yield MicroBatch(tuple(made), tuple(parts), done)


def _records(unit: DrawnUnit) -> Iterator[_Record]:
    for place, size, seed in zip(unit.places, unit.sizes, unit.seeds, strict=True):
        yield _Record(unit.unit, place, size, seed, 1 / len(unit.places))


def _fitted(
    records: Sequence[_Record], rule: PackingRule, *, one_open: bool
) -> list[list[_Record]]:
    """The longest first, each into the first sequence with room for it, and sequences by their
    lengths; with `one_open` only into the last one, in the order in which they are."""
    if not one_open:
        records = sorted(records, key=lambda each: (-each.size, each.unit))
    if not rule.together:
        return [[record] for record in records]
    found: list[list[_Record]] = []
    rooms: list[int] = []
    for record in records:
        open_ = range(max(0, len(found) - 1) if one_open else 0, len(found))
        place = next((each for each in open_ if rooms[each] >= record.size), None)
        if place is None:
            place = len(found)
            found.append([])
            rooms.append(rule.length)
        found[place].append(record)
        rooms[place] -= record.size
    return found if one_open else sorted(found, key=lambda some: sum(each.size for each in some))


def _made(
    shard: TokenShard, rule: PackingRule, records: Sequence[_Record], draw: int
) -> PackedSequence:
    """What is drawn for a record follows from its own number: nothing of a record may depend on
    which others a step drew."""
    places = [record.place for record in records]
    sequence = PackedSequences(shard, rule, [places], (records[0].seed, draw))[0]
    if len(records) == 1:
        return sequence
    # The first token of a record is not asked of the record before it.
    starts = set(sequence.record_starts)
    labels = [IGNORED if n in starts else label for n, label in enumerate(sequence.labels)]
    return replace(sequence, labels=labels)
