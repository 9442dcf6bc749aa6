"""The local adapters of a past round as plain files, out of what is locked, for an auditor.

What is written has the digest that the silo signed and the coordinator admitted. It opens with the
identities of the coordinator's home and those that are given: old ones, or what an auditor holds.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from aggregator.coordinator import Coordinator
from aggregator.evidence.ledger import spool_admitted
from aggregator.feed.reading import own_records
from aggregator.upkeep.disk_pruning import prune_opened, workspace_in_use
from aggregator.upkeep.past_rounds import past_attempts
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import ArtifactRef, artifact_of_file
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Close, RoundPlan
from data_contracts.protocol.trusted_feed import TrustedFeed
from infra.disk.durable_files import disk_faults
from infra.encryption.identities import Identity

PRIVATE_DIRECTORY, PRIVATE_FILE = 0o700, 0o600


@dataclass(frozen=True)
class OpenedAdapter:
    """A local adapter that was written, and what its silo signed of it."""

    silo: str
    adapter: ArtifactRef
    path: Path


def open_evidence(
    c: Coordinator,
    feed: TrustedFeed,
    place: tuple[str, int],
    into: Path,
    given: tuple[Identity, ...] = (),
) -> list[OpenedAdapter]:
    """Write the admitted adapters of the round `place` (run, number) into the new folder `into`.

    Raises FederationOperatorError where nothing was closed, an identity lacks, or the folder has
    something in it, and UnusableMergeError where what was admitted is erased.
    """
    _require_new(into)
    plan, close = _closed(c, feed, *place)
    with_given = replace(c, identities=(*c.identities, *given))
    with workspace_in_use(c):
        paths = spool_admitted(with_given, plan.record, close.record)
        with disk_faults(into, sum(path.stat().st_size for path in paths)):
            into.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIRECTORY)
            pairs = zip(close.record.admitted, paths, strict=True)
            written = [_written(a.silo, a.adapter, path, into) for a, path in pairs]
    prune_opened(c, feed)
    return written


def _written(silo: str, adapter: ArtifactRef, path: Path, into: Path) -> OpenedAdapter:
    target = into / f"{silo}.safetensors"
    shutil.copyfile(path, target)
    target.chmod(PRIVATE_FILE)
    found = artifact_of_file(target)
    if found != adapter.plain:
        raise FederationOperatorError(
            str(target),
            expected=f"SHA-256 {adapter.digest}, as {silo} signed it",
            found=f"SHA-256 {found.digest}",
            action="let nothing write there, and run the command again",
        )
    return OpenedAdapter(silo, adapter, target)


def _closed(
    c: Coordinator, feed: TrustedFeed, run: str, round_number: int
) -> tuple[Verified[RoundPlan], Verified[Close]]:
    """The newest attempt of a round that was closed."""
    for plan in past_attempts(c, feed, run, round_number):
        if (close := own_records(c, feed, plan).found(Close)) is not None:
            return plan, close
    raise FederationOperatorError(
        f"round {round_number} of {run}",
        expected="a round that was closed",
        found="none of its attempts was",
        action="name a round that was merged; nothing is kept of the others",
    )


def _require_new(into: Path) -> None:
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise FederationOperatorError(
            str(into),
            expected="no such folder yet, or an empty one",
            found="something else",
            action="name another folder",
        )
