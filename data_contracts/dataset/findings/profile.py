"""What a data set looks like as a whole: shares per label, length, licence and language.

Kept by the silo from the last accepted round to measure drift against; it never leaves, and what
the data say (labels, licences, languages) is in it under the silo's key only. Drift is
the population stability index, the symmetrised Kullback-Leibler divergence sum((p-q) ln(p/q)) over
the bins of a dimension (Siddiqi, Credit Risk Scorecards, 2006), largest over the dimensions.
"""

import json
import math
import sqlite3

from data_contracts.dataset.findings.columns import TABLE
from data_contracts.dataset.findings.keyed import Keyed
from data_contracts.protocol.wire_types import Part

ABSENT = ""
MAX_BINS = 500
_FLOOR = 1e-4
"""Share given to a bin that is empty on one side, so that the logarithm exists."""

_DIMENSIONS = {
    "label": "COALESCE(label, '')",
    "language": "COALESCE(language, '')",
    "licence": "licence",
    "split": "split",
    # Lengths in bins of powers of two: a shift by a few characters is no drift.
    "answer_length": "bit_length(answer_characters)",
}


class Profile(Part):
    """Records per bin, by dimension."""

    records: int
    bins: dict[str, dict[str, int]]

    @classmethod
    def from_json(cls, data: bytes) -> "Profile":
        """The profile in `data`; raises ValueError when it is none."""
        return cls.model_validate(json.loads(data))


def profile_of(connection: sqlite3.Connection, keyed: Keyed) -> Profile:
    """The profile of the readable rows of a findings table; the largest MAX_BINS of a dimension."""
    # Not every SQLite is built with LOG2.
    connection.create_function("bit_length", 1, int.bit_length, deterministic=True)
    bins = {
        name: {
            _bin(value, keyed): count
            for value, count in connection.execute(
                f"SELECT {expression} AS bin, COUNT(*) AS n FROM {TABLE} "  # noqa: S608
                f"WHERE readable GROUP BY bin ORDER BY n DESC, bin LIMIT {MAX_BINS}"
            )
        }
        for name, expression in _DIMENSIONS.items()
    }
    return Profile(records=sum(bins["split"].values()), bins=bins)


def _bin(value: str | int, keyed: Keyed) -> str:
    """Numbers and the absent stay as they are; a text becomes half a keyed digest."""
    if isinstance(value, int) or value == ABSENT:
        return str(value)
    return keyed("bin", value)[:32]


def summarise(profile: Profile, previous: Profile | None) -> dict[str, int | None]:
    """The values of the summary table; None where there is nothing to say."""
    return {
        "majority_per_mille": majority_per_mille(profile),
        "psi_thousandths": None if previous is None else psi_thousandths(profile, previous),
    }


def majority_per_mille(profile: Profile) -> int | None:
    """Share of the most frequent label among labelled records, per thousand, rounded up."""
    labels = {name: count for name, count in profile.bins["label"].items() if name != ABSENT}
    total = sum(labels.values())
    return math.ceil(1000 * max(labels.values()) / total) if total else None


def psi_thousandths(now: Profile, before: Profile) -> int:
    """Largest population stability index over the dimensions, in thousandths, rounded."""
    dimensions = set(now.bins) & set(before.bins)
    return round(1000 * max((_psi(now.bins[d], before.bins[d]) for d in dimensions), default=0.0))


def _psi(now: dict[str, int], before: dict[str, int]) -> float:
    total_now, total_before = sum(now.values()), sum(before.values())
    if not total_now or not total_before:
        return 0.0
    index = 0.0
    for name in sorted(set(now) | set(before)):
        p = max(now.get(name, 0) / total_now, _FLOOR)
        q = max(before.get(name, 0) / total_before, _FLOOR)
        index += (p - q) * math.log(p / q)
    return index
