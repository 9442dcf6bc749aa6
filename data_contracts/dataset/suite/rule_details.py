"""Every rule with what was found of it: exact counts, and the first rows that break it.

For people inside the silo, who may see all of this: nothing is withheld, and nothing of it leaves.
Read from the findings table alone, in the order of the rows; the same table gives the same
details. An outcome that may leave is `expectations.evaluate`'s, which has counted the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

import sqlalchemy as sa

from data_contracts.dataset.contract import DataContract
from data_contracts.dataset.contract.quality_rules import QualityRule
from data_contracts.dataset.findings.columns import TABLE
from data_contracts.dataset.licence_policy import LicencePolicy
from data_contracts.dataset.suite.built_in_rules import (
    DISTINCT,
    IS_NULL,
    NOT_NULL,
    OF_RECORDS,
    suites_of,
)
from data_contracts.dataset.suite.counts import broken_counts, is_broken
from data_contracts.dataset.suite.row_reasons import Row, RowReasons
from data_contracts.dataset.suite.rule_limits import allowed_words, counted_words, found_words

ROWS_AT_ONCE = 500
"""Rows asked for in one query: databases bound the number of its arguments."""

_OTHERS = {
    "duplicates.exact": "repeats",
    "duplicates.near": "repeats",
    "split.no_leakage": "leaks_with",
}
"""Rules about two records, and the column that names the other one's row."""


@dataclass(frozen=True)
class BrokenRow:
    """A row (counts from 1) that breaks a rule, and why; `other` is the row that it repeats."""

    row: int
    reason: str
    other: int | None = None


@dataclass(frozen=True)
class RuleDetail:
    """What was found of one rule, and what it allows, in words.

    A rule that `counts_records` is broken by `broken` of them, of which `rows` are the first.
    """

    rule: str
    found: str
    allowed: str
    counts_records: bool = False
    broken: int = 0
    rows: tuple[BrokenRow, ...] = ()


@dataclass(frozen=True)
class SetDetails:
    """`records` of the set (rows, readable or not), its rules, and the ids that repeat.

    `keyed_ids` are the digests, under the silo's key, of the ids of every row that is named.
    """

    records: int = 0
    rules: tuple[RuleDetail, ...] = ()
    repeated_ids: int = 0
    repeated_id_rows: tuple[BrokenRow, ...] = ()
    keyed_ids: dict[int, str] = field(default_factory=dict)


def set_details(contract: DataContract, database: str, most_rows: int) -> SetDetails:
    """Details of every rule of `contract` on the findings in `database` (an SQLAlchemy URL), in
    the order of `suites_of`, with at most `most_rows` rows for each."""
    engine = sa.create_engine(database)
    try:
        with engine.connect() as connection:
            reader = _Reader(connection, contract, most_rows)
            rules = tuple(
                detail
                for table, rules in suites_of(contract).items()
                for detail in reader.details(table, rules)
            )
            repeated, rows = reader.repeated_ids()
            named = {r for d in rules for r in _named(d.rows)} | set(_named(rows))
            return SetDetails(reader.records(), rules, repeated, rows, reader.keyed_ids(named))
    finally:
        engine.dispose()


def _named(rows: Sequence[BrokenRow]) -> list[int]:
    return [row for it in rows for row in (it.row, it.other) if row is not None]


class _Reader:
    """What is asked of one findings database."""

    def __init__(self, connection: sa.Connection, contract: DataContract, most_rows: int) -> None:
        self._connection, self._most_rows = connection, most_rows
        self._findings = sa.Table(TABLE, sa.MetaData(), autoload_with=connection)
        self._reasons = RowReasons(contract, cache(lambda: _licence_policy(contract)))

    def records(self) -> int:
        """Rows of the set."""
        return self._scalar(sa.select(sa.func.count()).select_from(self._findings)) or 0

    def details(self, table_name: str, rules: Sequence[QualityRule]) -> list[RuleDetail]:
        """Details of `rules`, which all read one table."""
        if table_name != TABLE:
            table = sa.Table(table_name, sa.MetaData(), autoload_with=self._connection)
            return [self._of_set(rule, table) for rule in rules]
        of_records = [rule for rule in rules if rule.type in OF_RECORDS]
        _, broken = broken_counts(self._connection, self._findings, of_records)
        counts = zip(of_records, broken, self._looked_at(of_records), strict=True)
        known = {rule.rule: self._of_records(rule, *numbers) for rule, *numbers in counts}
        return [
            known[rule.rule] if rule.rule in known else self._of_set(rule, self._findings)
            for rule in rules
        ]

    def repeated_ids(self) -> tuple[int, tuple[BrokenRow, ...]]:
        """How many rows have the id of an earlier one, and the first of them."""
        column = self._findings.c.same_id_as
        count = self._scalar(sa.select(sa.func.count(column))) or 0
        rows = self._rows(column.is_not(None)) if count else []
        return count, tuple(BrokenRow(row["row"], "the same id", row["same_id_as"]) for row in rows)

    def keyed_ids(self, rows: Iterable[int]) -> dict[int, str]:
        """Keyed digest of the id of each of `rows`."""
        return {row: found["record_id"] for row, found in self._by_number(rows).items()}

    def _of_set(self, rule: QualityRule, table: sa.Table) -> RuleDetail:
        """A rule about one number: how many different values or rows, or what was measured."""
        if rule.column is None:
            asked = sa.select(sa.func.count()).select_from(table)
        elif rule.type == DISTINCT:
            # Grouping sorts; COUNT(DISTINCT) fills a tree, several times slower at a million rows.
            column = table.c[rule.column]
            different = sa.select(column).where(column.is_not(None)).group_by(column).subquery()
            asked = sa.select(sa.func.count()).select_from(different)
        else:
            asked = sa.select(table.c[rule.column])
        return RuleDetail(rule.rule, counted_words(rule, self._scalar(asked)), allowed_words(rule))

    def _looked_at(self, rules: Sequence[QualityRule]) -> list[int]:
        """How many rows each rule about records asks, all in one pass."""
        # An absent value is passed over, but by the rules about presence.
        asked = [
            sa.func.count()
            if rule.type in (NOT_NULL, IS_NULL)
            else sa.func.count(self._findings.c[rule.column or ""])
            for rule in rules
        ]
        return list(self._connection.execute(sa.select(*asked).select_from(self._findings)).one())

    def _of_records(self, rule: QualityRule, broken: int, looked_at: int) -> RuleDetail:
        found, allowed = found_words(rule, broken, looked_at), allowed_words(rule)
        rows = self._broken_rows(rule) if broken else ()
        return RuleDetail(rule.rule, found, allowed, True, broken, rows)

    def _broken_rows(self, rule: QualityRule) -> tuple[BrokenRow, ...]:
        rows = self._rows(is_broken(rule, self._findings))
        column = _OTHERS.get(rule.rule)
        numbers = [row[column] for row in rows] if column else [None] * len(rows)
        others = self._by_number(number for number in numbers if number is not None)
        return tuple(
            BrokenRow(row["row"], self._reasons.reason(rule, row, others.get(number or 0)), number)
            for row, number in zip(rows, numbers, strict=True)
        )

    def _rows(self, condition: sa.ColumnElement[bool]) -> list[Row]:
        table = self._findings
        query = sa.select(table).where(condition).order_by(table.c.row).limit(self._most_rows)
        return [row._asdict() for row in self._connection.execute(query)]

    def _by_number(self, numbers: Iterable[int]) -> dict[int, Row]:
        table, wanted = self._findings, sorted(set(numbers))
        found: dict[int, Row] = {}
        for begin in range(0, len(wanted), ROWS_AT_ONCE):
            query = sa.select(table).where(table.c.row.in_(wanted[begin : begin + ROWS_AT_ONCE]))
            found |= {row.row: row._asdict() for row in self._connection.execute(query)}
        return found

    def _scalar(self, query: sa.Select[tuple[int]]) -> int | None:
        return self._connection.execute(query).scalar_one_or_none()


def _licence_policy(contract: DataContract) -> LicencePolicy:
    # Imported here because the detectors take long to load, and few sets have a licence refused.
    from data_contracts.dataset.findings.checks import licence_policy

    return licence_policy(contract.terms)
