"""What leaves of the local adapter under a masked plan, in the plan's own terms."""

import logging
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.core_bases import UnmovedCores
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter, narrowed
from data_contracts.confidential.attempt import terms_of
from data_contracts.confidential.payload import factors_of, fixed_point_of, sketch_of
from data_contracts.masking.extra_numbers import SQUARED_NORM
from data_contracts.masking.payload import Change, CoreChange
from data_contracts.masking.silo_mask import MaskTerms, OwnPlace
from data_contracts.masking.sketch import SketchedChange
from data_contracts.protocol.records import RoundPlan
from infra.processes.worker_threads import default_workers
from silo_agent.masking.masked_adapter import MaskedAdapter, write_masked

log = logging.getLogger("silo-agent")


def mask_local(
    plan: RoundPlan, place: OwnPlace, local: Path, starting: Path | None, tokens: int, into: Path
) -> None:
    """Mask the trained adapter `local` in the silo's exchanged layout, whole or not at all.

    `starting` is the run's adapter that the round started from, None for the plan's seed. The same
    inputs give the same bytes. Raises SiloOperatorError for an adapter that cannot be masked.
    """
    change = _change(plan, open_adapter(local, plan.submitted_by(place.silo)), starting)
    if plan.masks_norms:
        change = replace(change, extras={SQUARED_NORM: change.norm() ** 2})
    factor = Fraction(plan.weight_of(tokens), plan.greatest_weight)
    terms = MaskTerms(fixed_point_of(plan), factor, terms_of(plan).clip_norm)
    _tell(plan, change.payload.entries, write_masked(into, change, place, terms, default_workers()))


def _change(
    plan: RoundPlan, local: AdapterSource, starting: Path | None
) -> Change | SketchedChange:
    start = _starting(plan, starting)
    if plan.is_sketched:
        return SketchedChange(sketch_of(plan), local, narrowed(start, local.layout))
    if not plan.sends_cores:
        return Change(factors_of(plan), local, start, {})
    unmoved = UnmovedCores(start)
    if plan.masks_norms:
        return CoreChange(factors_of(plan), local, unmoved, {}, start)
    return Change(factors_of(plan), local, unmoved, {})


def _starting(plan: RoundPlan, path: Path | None) -> AdapterSource:
    if path is None:
        return InitialAdapter(plan.exchanged)
    return open_adapter(path, plan.exchanged)


def _tell(plan: RoundPlan, entries: int, masked: MaskedAdapter) -> None:
    if masked.kept is not None and masked.kept < 1:
        log.info("round %d: the change was shortened to %.3f of its norm", plan.round, masked.kept)
    if masked.clipped:
        log.warning(
            "round %d: %d of %d entries of the change were cut to the plan's largest change; where "
            "that is many, ask for a higher masking.largest_change",
            plan.round,
            masked.clipped,
            entries,
        )
