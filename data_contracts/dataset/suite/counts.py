"""How many values break each rule, counted in the database that holds the findings.

Great Expectations' own results are not read for this, because they carry values. Absent values are
skipped, as the library skips them, but for the rules about presence.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from data_contracts.dataset.contract.quality_rules import QualityRule
from data_contracts.dataset.suite.built_in_rules import (
    IN_SET,
    IS_NULL,
    NOT_NULL,
    OF_RECORDS,
)


def broken_counts(
    connection: sa.Connection, table: sa.Table, rules: Sequence[QualityRule]
) -> tuple[int, list[int]]:
    """(rows of the table, values that break each rule); 0 for a rule about the whole table."""
    conditions = [is_broken(rule, table) for rule in rules]
    sums = [sa.func.sum(sa.case((condition, 1), else_=0)) for condition in conditions]
    row = connection.execute(sa.select(sa.func.count(), *sums).select_from(table)).one()
    return int(row[0]), [int(value or 0) for value in row[1:]]


def is_broken(rule: QualityRule, table: sa.Table) -> sa.ColumnElement[bool]:
    """Whether a row of `table` breaks `rule`; never for a rule about the whole table."""
    if rule.column is None or rule.type not in OF_RECORDS:
        return sa.false()
    column = table.c[rule.column]
    if rule.type == NOT_NULL:
        return column.is_(None)
    if rule.type == IS_NULL:
        return column.is_not(None)
    if rule.type == IN_SET:
        # A NULL compares to NULL, which is not counted.
        return column.not_in(list(rule.value_set or ()))
    bounds = []
    if rule.min_value is not None:
        bounds.append(column < rule.min_value)
    if rule.max_value is not None:
        bounds.append(column > rule.max_value)
    return sa.or_(sa.false(), *bounds)
