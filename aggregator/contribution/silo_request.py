"""Asks a round's silos to measure its coalitions, where all their owners allow it.

Guaranteed, in this order: every admitted silo has accepted with `shares_individual_delta`, enough
of their contracts let losses out, the silos still follow this round and the request fits one
record, before anything is merged; adapters are in storage before the request that names them; one
request wins for an attempt. What was merged and stored before a kill is not merged again.
"""

import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from pydantic import ValidationError

from aggregator.contribution.closed_round import ClosedRound
from aggregator.contribution.coalition_merge import MergedFiles, merge_coalitions
from aggregator.contribution.coalitions import Coalition
from aggregator.contribution.plan import ContributionPlan, OnMeasured, batches
from aggregator.coordinator import Coordinator
from aggregator.evidence.storing import readers_of, store
from aggregator.feed.claims import sign_on_plan
from aggregator.feed.reading import own_records
from aggregator.upkeep.disk_pruning import prune_opened, workspace_in_use
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import ArtifactRef, StoredBytes, artifact_of_file
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import ContributionRequest
from data_contracts.protocol.records.contribution_request import (
    MAX_COALITIONS,
    CoalitionAdapter,
    member_digits,
)
from infra.disk.durable_files import write_durably

LEAST_MEASURING = 2
"""The mean of one silo would be that silo's own losses."""

ANY_BYTES = StoredBytes(digest="0" * 64, size=2**53 - 1)
ANY_REF = ArtifactRef(digest="0" * 64, size=2**53 - 1)


def made_request(c: Coordinator, closed: ClosedRound) -> Verified[ContributionRequest] | None:
    """The request on this attempt; one that was only claimed is published by `make_request`."""
    return own_records(c, closed.feed, closed.plan).found(ContributionRequest)


def make_request(
    c: Coordinator,
    closed: ClosedRound,
    wanted: ContributionPlan,
    answer_within: timedelta,
    on_merged: OnMeasured | None = None,
) -> Verified[ContributionRequest]:
    """Merge the coalitions, store the adapters and publish the request for them.

    Silos have `answer_within` from then on. `on_merged` gets how many coalitions are stored and how
    many there are. Raises FederationOperatorError, with nothing merged or stored, when the silos
    may not be asked.
    """
    _require_shared(closed)
    _require_measuring(closed)
    _require_followed(closed)
    _require_fits(c, closed, wanted, answer_within)
    with workspace_in_use(c):
        parts = _stored(c, closed, wanted, on_merged)
    prune_opened(c, closed.feed)
    request = _request(c, closed, parts, answer_within)
    return sign_on_plan(c, closed.feed, closed.plan, request)


def measuring_silos(closed: ClosedRound) -> tuple[str, ...]:
    """Admitted silos whose contracts let losses out; nobody waits for the others in vain."""
    verdicts = {silo: closed.attempt.of(silo).verdict for silo in closed.silos}
    return tuple(silo for silo, v in verdicts.items() if v is not None and v.record.evaluates)


def _require_shared(closed: ClosedRound) -> None:
    accepted = {silo: closed.attempt.of(silo).acceptance for silo in closed.silos}
    keeping = [
        silo for silo, v in accepted.items() if v is None or not v.record.shares_individual_delta
    ]
    if keeping:
        raise _refused(
            closed,
            "every admitted silo to have accepted with share_individual_delta = true in its policy",
            f"not so at {', '.join(keeping)}",
            "measure with --public, or ask the owners of these silos to share from the next "
            "round on",
        )


def _require_measuring(closed: ClosedRound) -> None:
    measuring = measuring_silos(closed)
    if len(measuring) < LEAST_MEASURING:
        raise _refused(
            closed,
            f"at least {LEAST_MEASURING} admitted silos whose data contracts let losses out",
            ", ".join(measuring) or "none",
            "measure with --public, or agree to contracts whose egress allows losses",
        )


def _require_followed(closed: ClosedRound) -> None:
    """An agent looks at the newest plan of the feed and at no earlier one."""
    newest = closed.feed.attempt.plan if closed.feed.attempt else closed.plan
    if newest.digest != closed.plan.digest:
        raise _refused(
            closed,
            "the newest round, which the silos still follow",
            f"a later plan, that of round {newest.record.round} of {newest.record.run}",
            "measure this round with --public, or ask about the newest when it is closed",
        )


def _require_fits(
    c: Coordinator, closed: ClosedRound, wanted: ContributionPlan, answer_within: timedelta
) -> None:
    """Judged by references that are made up, since the real ones are not known yet."""
    is_encrypted = closed.plan.record.encryption is not None
    ref = ANY_REF.model_copy(update={"ciphertext": ANY_BYTES if is_encrypted else None})
    try:
        drafted = [
            CoalitionAdapter(members=_digits(closed, each), adapter=ref, residual=ref)
            for each in wanted.coalitions
        ]
        _request(c, closed, drafted, answer_within)
        return
    except ValidationError as error:
        found = error.errors(include_url=False)[0]["msg"]
    raise _refused(
        closed,
        f"a request of at most {MAX_COALITIONS:,} coalitions, answered later than it is made",
        f"{len(wanted.coalitions):,} coalitions of {len(closed.silos)} silos: {found}",
        "measure with --public, or give the silos more time where that is what is wrong",
    )


def _request(
    c: Coordinator, closed: ClosedRound, parts: Sequence[CoalitionAdapter], answer_within: timedelta
) -> ContributionRequest:
    now = c.clock.now()
    return ContributionRequest.on(
        closed.plan,
        now,
        close_digest=closed.close.digest,
        silos=closed.silos,
        coalitions=tuple(parts),
        answer_by=now + answer_within,
    )


def _stored(
    c: Coordinator, closed: ClosedRound, wanted: ContributionPlan, on_merged: OnMeasured | None
) -> list[CoalitionAdapter]:
    """Every coalition's adapter as a blob of the plans bucket, in the order of the plan."""
    directory = c.contributions_to(closed.plan.digest)
    stored, coalitions = directory / "stored", wanted.coalitions
    journal = {each: stored / f"{wanted.key(each)}.json" for each in coalitions}
    known = {each: part for each, path in journal.items() if (part := _read(path)) is not None}
    for batch in batches([each for each in coalitions if each not in known]):
        merged = merge_coalitions(
            c, closed.plan.record, closed.close.record, batch, directory / "merged"
        )
        for each in batch:
            known[each] = _store(c, closed, _digits(closed, each), merged[each])
            write_durably(journal[each], known[each].model_dump_json().encode())
        shutil.rmtree(directory / "merged", ignore_errors=True)
        if on_merged:
            on_merged(len(known), len(coalitions))
    return [known[each] for each in coalitions]


def _store(
    c: Coordinator, closed: ClosedRound, members: str, files: MergedFiles
) -> CoalitionAdapter:
    readers = readers_of(closed.plan.record, closed.attempt.membership.record)

    def put(path: Path | None) -> ArtifactRef | None:
        if path is None:
            return None
        return store(c, path, artifact_of_file(path), readers, aside=path.parent)

    return CoalitionAdapter(
        members=members, adapter=put(files.adapter), residual=put(files.residual)
    )


def _read(path: Path) -> CoalitionAdapter | None:
    """What was stored before; a damaged note is none, and is merged and stored again."""
    try:
        return CoalitionAdapter.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _digits(closed: ClosedRound, coalition: Coalition) -> str:
    return member_digits(closed.silos, coalition)


def _refused(
    closed: ClosedRound, expected: str, found: str, action: str
) -> FederationOperatorError:
    return FederationOperatorError(
        f"contributions to round {closed.plan.record.round}, measured by silos",
        expected=expected,
        found=found,
        action=action,
    )
