"""From masked files and revealed shares to the one adapter that the merge takes: the silos' mean.

What opened the sum is kept as evidence before it is used, and named by the candidate. The mean is
the same whichever silos' shares opened it.
"""

from dataclasses import dataclass
from fractions import Fraction

from aggregator.attempt import UNMASKING_KINDS, Attempt
from aggregator.coordinator import CANDIDATES, Coordinator
from aggregator.decisions.opening import NOT_OPENED, usable_shares
from aggregator.evidence.ledger import Exhibit, keep, spool_admitted
from aggregator.evidence.sources import mean_adapter, starting_source
from aggregator.merge.merge_inputs import LocalAdapter
from aggregator.unmasking.masked_sum import masked_sum
from aggregator.unmasking.opening_seeds import opening_seeds
from aggregator.unmasking.unmasked_adapter import write_unmasked
from aggregator.unmasking.unsketched_adapter import write_unsketched
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.core_bases import UnmovedCores
from data_contracts.adapters.starting_adapter import AdapterSource
from data_contracts.confidential.attempt import binding_of, group_of
from data_contracts.confidential.payload import factors_of, fixed_point_of, payload_of, sketch_of
from data_contracts.errors import ConsortiaError, UnusableMergeError
from data_contracts.masking.extra_numbers import SQUARED_NORM
from data_contracts.masking.masked_file import MaskedFile, open_masked
from data_contracts.masking.rebuilt_seeds import RebuiltSeeds
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Close, RoundPlan
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from infra.processes.worker_threads import default_workers


class NotOpenedError(UnusableMergeError):
    """The shares that silos revealed do not open the sum."""

    rule = NOT_OPENED


@dataclass(frozen=True)
class Unmasked:
    """The mean of what was admitted, as if one silo had sent it, and what opened it.

    `mean_square`: the weighted mean of the squared norms of the changes, where silos masked them.
    """

    local: LocalAdapter
    opened_by: tuple[EvidenceRef, ...]
    mean_square: float | None


def unmask(c: Coordinator, attempt: Attempt) -> Unmasked | None:
    """The mean of a masked attempt that is closed and opened; None for a plan without masks.

    Raises NotOpenedError where what can be kept of the shares does not open the sum, and
    ErasedAdapterError where a masked file is gone.
    """
    plan, close, roster = attempt.plan, attempt.close, attempt.roster
    if plan.record.masking is None:
        return None
    if close is None or roster is None:
        raise ValueError("expected a closed attempt with a roster of mask keys")
    opened_by = _kept(c, attempt)
    seeds = _seeds(attempt, opened_by)
    group, point = group_of(plan, roster, attempt.membership.record), fixed_point_of(plan.record)
    files, starting = _files(c, plan, close.record), starting_source(c, plan.record)
    local: AdapterSource
    path = c.workspace / CANDIDATES / f"{close.digest}.mean.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    if plan.record.is_sketched:
        images = masked_sum(group, sketch_of(plan.record), point, files, seeds)
        found = write_unsketched(path, images, starting, default_workers())
        local, adapter, extras = open_adapter(path, found.layout), found.adapter, found.extras
    else:
        total = masked_sum(group, factors_of(plan.record), point, files, seeds)
        start = UnmovedCores(starting) if plan.record.sends_cores else starting
        mean = write_unmasked(path, total, start, default_workers())
        local, adapter = mean_adapter(plan.record, path, starting), mean.adapter
        extras = mean.extras
    one = LocalAdapter(local, adapter.digest, weight=1)
    return Unmasked(one, opened_by, extras.get(SQUARED_NORM))


def _kept(c: Coordinator, attempt: Attempt) -> tuple[EvidenceRef, ...]:
    """Countersignatures and shares, held before anything is opened with them."""
    admitted = {item.silo for item in attempt.close.record.admitted} if attempt.close else set()
    usable = usable_shares(attempt)
    exhibits = [
        Exhibit(own.reference(word), word.envelope)
        for own in attempt.cohort()
        if own.silo in admitted
        for word in (own.countersignature, own.revealed_shares)
        if word is not None and (word is own.countersignature or own.silo in usable)
    ]
    return tuple(keep(c, attempt.plan, exhibits))


def _seeds(attempt: Attempt, opened_by: tuple[EvidenceRef, ...]) -> RebuiltSeeds:
    held = {(ref.silo, ref.digest) for ref in opened_by}
    on_held = attempt.only(
        lambda silo, v: v.record.kind not in UNMASKING_KINDS or (silo, v.digest) in held
    )
    try:
        return opening_seeds(on_held)
    except ConsortiaError as error:
        raise NotOpenedError(
            f"sum of masked changes, {error.problem}",
            expected=error.expected,
            found=error.found,
            action="go on with the next round; silos open one sum of a round at most",
        ) from error


def _files(c: Coordinator, plan: Verified[RoundPlan], close: Close) -> dict[MaskedFile, Fraction]:
    """Every admitted file with its silo's factor, by which its numbers are multiplied already."""
    entries, binding = payload_of(plan.record).entries, binding_of(plan)
    greatest = plan.record.greatest_weight
    return {
        open_masked(path, binding, admitted.silo, entries): Fraction(admitted.weight, greatest)
        for admitted, path in zip(
            close.admitted, spool_admitted(c, plan.record, close), strict=True
        )
    }
