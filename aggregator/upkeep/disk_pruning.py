"""Removes from the coordinator's workspace what no round needs any more.

What lies there can be fetched or made again, so this costs no evidence. Guaranteed: nothing goes
while the newest attempt of the run has no report, or while a command measures contributions; what
the next round starts from stays, and all that the last `keep_rounds` rounds used, for measuring
contributions to them without fetching it; but for what silos sent encrypted, which goes
opened as it is with the report. Keys, feed, reports, contracts and the published folder
are never looked at, no link is followed, and names that this program does not give stay.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from aggregator.coordinator import CANDIDATES, CONTRIBUTIONS, Coordinator
from aggregator.evidence.spool import OPENED, SPOOL
from aggregator.feed.reading import attempts_back, newest_attempt, own_records, read_report
from aggregator.planning.starting_point import starting_point
from aggregator.upkeep.storage_needs import merged_from_and_into
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Close, RoundPlan
from data_contracts.protocol.trusted_feed import TrustedFeed
from infra.disk.file_lock import shared, try_lock
from infra.disk.own_files import (
    Removed,
    is_own_directory,
    is_own_file,
    leads_through_no_link,
    leftovers,
    own_entries,
    remove_all,
)

IN_USE_NAME = "in-use.lock"

_BLOB = re.compile(r"(?P<digest>[0-9a-f]{64})\.safetensors")
_CANDIDATE = re.compile(r"\.?[0-9a-f]{64}\..+")
_CONTRIBUTIONS = re.compile(r"[0-9a-f]{16}")


@contextmanager
def workspace_in_use(c: Coordinator) -> Iterator[None]:
    """Whoever uses the workspace outside a round: nothing in it is pruned inside the block."""
    c.workspace.mkdir(parents=True, exist_ok=True)
    with shared(c.workspace / IN_USE_NAME):
        yield


def prune_workspace(c: Coordinator, feed: TrustedFeed) -> Removed:
    """Remove what no round needs; nothing while one is under way or the workspace is in use."""
    if not is_own_directory(c.workspace):
        return Removed()
    with (c.workspace / IN_USE_NAME).open("a") as file:
        return remove_all(surplus(c, feed)) if try_lock(file) else Removed()


def prune_opened(c: Coordinator, feed: TrustedFeed) -> Removed:
    """Remove what was opened once more of a round that is reported, unless somebody reads it."""
    newest = newest_attempt(c, feed)
    if newest is None or read_report(c, feed, newest.plan) is None:
        return Removed()
    with (c.workspace / IN_USE_NAME).open("a") as file:
        return remove_all(_opened(c)) if try_lock(file) else Removed()


def surplus(c: Coordinator, feed: TrustedFeed) -> list[Path]:
    """What would be removed now."""
    newest = newest_attempt(c, feed)
    if newest is None or read_report(c, feed, newest.plan) is None:
        return []
    kept = list(islice(attempts_back(c, feed), c.settings.disk.keep_rounds))
    start = starting_point(c, feed)
    next_needs = (start.adapter, start.residual, start.server_state, start.earlier)
    digests = {ref.digest for ref in next_needs if ref is not None}
    for attempt in kept:
        digests.update(_used(c, feed, attempt.plan))
    plans = {c.contributions_to(attempt.plan.digest).name for attempt in kept}
    found = [*_opened(c), *_blobs(c, digests), *_candidates(c)]
    found += [*_contributions(c, plans), *_leftovers(c)]
    return [path for path in found if leads_through_no_link(c.settings.home, path)]


def _used(c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan]) -> Iterator[str]:
    """Digests of what a round started from, admitted and merged."""
    records = own_records(c, feed, plan)
    yield from (ref.digest for ref in merged_from_and_into(plan.record, records))
    if (close := records.found(Close)) is not None:
        yield from (admitted.adapter.digest for admitted in close.record.admitted)


def _blobs(c: Coordinator, kept: set[str]) -> Iterator[Path]:
    for path in own_entries(c.workspace / SPOOL):
        match = _BLOB.fullmatch(path.name)
        if match is not None and match["digest"] not in kept and is_own_file(path):
            yield path


def _opened(c: Coordinator) -> list[Path]:
    """What silos sent encrypted, opened for a merge: nobody's to read once that is reported."""
    found = own_entries(c.workspace / OPENED)
    return [path for path in found if _CONTRIBUTIONS.fullmatch(path.name) and not path.is_symlink()]


def _candidates(c: Coordinator) -> list[Path]:
    """Merges of rounds that are over; the candidate itself is in storage, and in the spool."""
    found = own_entries(c.workspace / CANDIDATES)
    return [path for path in found if _CANDIDATE.fullmatch(path.name) and not path.is_symlink()]


def _contributions(c: Coordinator, kept: set[str]) -> list[Path]:
    """Losses of coalitions in rounds that are past; what came of them lies beside the reports."""
    found = own_entries(c.workspace / CONTRIBUTIONS)
    return [
        path
        for path in found
        if _CONTRIBUTIONS.fullmatch(path.name) and path.name not in kept and not path.is_symlink()
    ]


def _leftovers(c: Coordinator) -> Iterator[Path]:
    now = c.clock.now().timestamp()
    for directory in (c.settings.home, *own_entries(c.workspace)):
        yield from leftovers(directory, now)
