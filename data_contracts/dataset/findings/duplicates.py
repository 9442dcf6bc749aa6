"""Exact and near duplicates of a finished table, and training records that leak the evaluation.

Exact: the same text digest as an earlier row. Near: a MinHash signature that agrees with an
earlier row's in at least NEAR of its positions, among rows that share a band (Broder, On the
resemblance and containment of documents, 1997; Indyk and Motwani, 1998). Candidates are compared
with the first row of their band, so a cluster's edge can be missed, never invented. Every sort
happens in SQLite, which spills to disk. Of each record that repeats, leaks, or has the id of an
earlier one the table also says which row that other record is.
"""

import sqlite3
from collections.abc import Iterator

import numpy as np

from data_contracts.dataset.findings.columns import TABLE
from data_contracts.dataset.findings.store import FindingsStore
from data_contracts.dataset.near_duplicates import estimated_similarity

NEAR = 0.8
"""Estimated Jaccard similarity of five-word shingles from which two texts are near duplicates."""

_PAIRS_AT_ONCE = 20_000


def mark_duplicates(store: FindingsStore) -> None:
    """Fill `is_duplicate`, `is_near_duplicate`, `duplicate_cluster`, `repeats`, `leaks`,
    `leaks_with` and `same_id_as`."""
    connection = store.connection
    store.begin()
    _mark_exact(connection)
    _mark_near(connection)
    _mark_leaks(connection)
    _mark_repeated_ids(connection)
    store.commit()


def _mark_exact(connection: sqlite3.Connection) -> None:
    connection.execute(
        f"UPDATE {TABLE} SET is_duplicate = 0, is_near_duplicate = 0, leaks = 0 WHERE readable"  # noqa: S608
    )
    connection.execute(
        f"""CREATE TABLE scratch.firsts AS
        SELECT text_digest, MIN(row) AS first FROM {TABLE}
        WHERE readable GROUP BY text_digest HAVING COUNT(*) > 1"""  # noqa: S608
    )
    connection.execute("CREATE INDEX scratch.by_text ON firsts (text_digest, first)")
    connection.execute(
        f"""UPDATE {TABLE} SET
            duplicate_cluster = f.first,
            is_duplicate = ({TABLE}.row > f.first),
            repeats = CASE WHEN {TABLE}.row > f.first THEN f.first END
        FROM scratch.firsts f WHERE f.text_digest = {TABLE}.text_digest"""  # noqa: S608
    )


def _mark_near(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE scratch.pairs (later INTEGER, earlier INTEGER, UNIQUE (later, earlier))"
    )
    connection.execute("CREATE TABLE scratch.similar (later INTEGER, earlier INTEGER)")
    connection.executemany(
        "INSERT OR IGNORE INTO scratch.pairs VALUES (?, ?)", _candidates(connection)
    )
    query = """SELECT later, earlier, l.s, e.s FROM scratch.pairs
        JOIN scratch.signatures l ON l.row = later
        JOIN scratch.signatures e ON e.row = earlier ORDER BY later, earlier"""
    cursor = connection.execute(query)
    while pairs := cursor.fetchmany(_PAIRS_AT_ONCE):
        _mark_similar(connection, pairs)


def _candidates(connection: sqlite3.Connection) -> Iterator[tuple[int, int]]:
    """(row, first row with the same band key), for every row but the first."""
    ordered = connection.execute("SELECT key, row FROM scratch.bands ORDER BY key, row")
    band, first = None, 0
    for key, row in ordered:
        if key != band:
            band, first = key, row
        elif row != first:
            yield row, first


def _mark_similar(
    connection: sqlite3.Connection, pairs: list[tuple[int, int, bytes, bytes]]
) -> None:
    later = np.frombuffer(b"".join(pair[2] for pair in pairs), dtype="<u4")
    earlier = np.frombuffer(b"".join(pair[3] for pair in pairs), dtype="<u4")
    shape = (len(pairs), -1)
    similar = estimated_similarity(later.reshape(shape), earlier.reshape(shape)) >= NEAR
    for (row, first, _, _), is_near in zip(pairs, similar, strict=True):
        if is_near:
            _join_cluster(connection, row, first)
            connection.execute("INSERT INTO scratch.similar VALUES (?, ?)", (row, first))


def _join_cluster(connection: sqlite3.Connection, row: int, first: int) -> None:
    """Put `row` into the cluster of `first`, which is earlier and so has its cluster already."""
    connection.execute(
        f"UPDATE {TABLE} SET duplicate_cluster = row WHERE row = ? AND duplicate_cluster IS NULL",  # noqa: S608
        (first,),
    )
    connection.execute(
        f"""UPDATE {TABLE} SET
            is_near_duplicate = NOT is_duplicate,
            repeats = COALESCE(repeats, ?),
            duplicate_cluster = MIN(
                COALESCE(duplicate_cluster, row),
                (SELECT duplicate_cluster FROM {TABLE} WHERE row = ?))
        WHERE row = ?""",  # noqa: S608
        (first, first, row),
    )


def _mark_leaks(connection: sqlite3.Connection) -> None:
    """A training record leaks when its cluster, its subject or its picture is also held out.

    Clusters are not merged, so every similar pair is asked for itself as well.
    """
    for one, other in (("later", "earlier"), ("earlier", "later")):
        _mark_leaking(
            connection,
            f"""SELECT {one} AS it, MIN({other}) AS held FROM scratch.similar
            JOIN {TABLE} o ON o.row = {other} WHERE o.split = 'heldout' GROUP BY {one}""",  # noqa: S608
            "row",
        )
    for column in ("duplicate_cluster", "subject_id", "image_digest"):
        _mark_leaking(
            connection,
            f"""SELECT {column} AS it, MIN(row) AS held FROM {TABLE}
            WHERE split = 'heldout' AND {column} IS NOT NULL GROUP BY {column}""",  # noqa: S608
            column,
        )


def _mark_leaking(connection: sqlite3.Connection, held_out: str, column: str) -> None:
    """Training records whose `column` is an `it` of the query leak with its row `held`."""
    connection.execute(f"CREATE TABLE scratch.leaking AS {held_out}")
    connection.execute("CREATE UNIQUE INDEX scratch.by_it ON leaking (it, held)")
    connection.execute(
        f"""UPDATE {TABLE} SET leaks = 1, leaks_with = COALESCE(leaks_with, l.held)
        FROM scratch.leaking l WHERE l.it = {TABLE}.{column} AND split = 'train'"""  # noqa: S608
    )
    connection.execute("DROP TABLE scratch.leaking")


def _mark_repeated_ids(connection: sqlite3.Connection) -> None:
    """The first row with the id of a later one; no rule looks at it, the steward does."""
    connection.execute(
        f"""CREATE TABLE scratch.ids AS
        SELECT record_id, MIN(row) AS first FROM {TABLE}
        WHERE readable GROUP BY record_id HAVING COUNT(*) > 1"""  # noqa: S608
    )
    connection.execute("CREATE INDEX scratch.by_id ON ids (record_id, first)")
    connection.execute(
        f"""UPDATE {TABLE} SET same_id_as = i.first FROM scratch.ids i
        WHERE i.record_id = {TABLE}.record_id AND {TABLE}.row > i.first"""  # noqa: S608
    )
