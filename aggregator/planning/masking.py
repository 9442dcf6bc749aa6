"""The masking of a plan in confidential mode, and what no such plan can have."""

from datetime import datetime, timedelta

from aggregator.planning.feasibility import impossible
from aggregator.settings.federation import FederationSettings, RoundSection
from aggregator.settings.masking import MaskingSection
from data_contracts.protocol.records.masked_step import step_fault
from data_contracts.protocol.records.masking_terms import (
    LEAST_MASKED_SILOS,
    MaskingTerms,
    least_threshold,
    masking_fault,
)
from data_contracts.protocol.records.sketch_width import (
    exact_sketch_width,
    least_sketch_width,
    sketch_fault,
)
from data_contracts.protocol.records.training_recipe import TrainedFactors

KEY_SHARE, SEALING_SHARE = 0.25, 0.125
"""Of the time to submit, where nothing is set: for the check of the data and keys, for shares."""


def masking_terms(
    settings: FederationSettings,
    cohort: tuple[str, ...],
    rank: int,
    trained: TrainedFactors,
    now: datetime,
) -> MaskingTerms | None:
    """For a cohort, a run of that rank and what the round trains; None in auditable mode.

    Raises FederationOperatorError for what masks cannot give, and for a threshold that protects
    nobody or cannot be reached.
    """
    if settings.trust_mode != "confidential":
        _require_seen(settings)
        return None
    silos = len(cohort)
    section = settings.masking or MaskingSection()
    if silos < LEAST_MASKED_SILOS:
        raise impossible(
            f"at least {LEAST_MASKED_SILOS} silos in confidential mode: of two each knows the "
            "other's part of their sum",
            f"{silos}",
            "add silos, or set trust_mode to auditable",
        )
    asked = section.threshold
    threshold = max(asked or least_threshold(silos), settings.round.quorum)
    fault = masking_fault(settings.merge_spec, silos, asked or threshold)
    if fault is None and threshold > silos:
        fault = f"a quorum of at most {silos}, the size of the cohort", f"{threshold}"
    if fault is not None:
        raise impossible(
            f"{fault[0]}, in confidential mode",
            fault[1],
            "correct masking.threshold, round.quorum or merge in federation.toml, or set "
            "trust_mode to auditable; docs/privacy.md says what each mode can do",
        )
    _require_plain(settings)
    _require_wide(settings, cohort, rank)
    _require_step(settings, cohort, rank, trained)
    return _terms(section, threshold, settings.round, now)


def _terms(
    section: MaskingSection, threshold: int, round_: RoundSection, now: datetime
) -> MaskingTerms:
    submit_minutes = round_.submit_minutes
    key_minutes = section.key_minutes or submit_minutes * KEY_SHARE
    shares_after = key_minutes + (section.share_minutes or submit_minutes * SEALING_SHARE)
    reveal_minutes = section.reveal_minutes or round_.evaluate_minutes
    if shares_after >= submit_minutes:
        raise impossible(
            "round.submit_minutes above masking.key_minutes and masking.share_minutes together, "
            "because silos train after that",
            f"{submit_minutes:g} and {shares_after:g}",
            "raise round.submit_minutes, or lower the two",
        )
    keys_by = now + timedelta(minutes=key_minutes)
    shares_by = now + timedelta(minutes=shares_after)
    reveal_by = now + timedelta(minutes=submit_minutes + reveal_minutes)
    return MaskingTerms(
        threshold=threshold,
        keys_by=keys_by.replace(microsecond=0),
        shares_by=shares_by.replace(microsecond=0),
        reveal_by=reveal_by.replace(microsecond=0),
        largest_change=section.largest_change,
        clip_norm=section.clip_norm,
    )


def _require_plain(settings: FederationSettings) -> None:
    """What asks for one silo's adapter, or for another file than all others'."""
    asked = {
        "one layout for all silos, unless merge.rule is sketch": (
            "silo_adapters",
            bool(settings.silo_adapters) and settings.merge.rule != "sketch",
        ),
        "the same modules at all silos: a sum needs all of its silos": (
            "target_modules in silo_adapters",
            any(own.target_modules for own in settings.silo_adapters.values()),
        ),
        'compression = "none", since masked entries are int32': (
            f"merge.compression = {settings.merge.compression}",
            settings.merge.compression != "none",
        ),
        "no error of the merge, which is measured on silos' adapters": (
            f"merge.error = {settings.merge.error}",
            settings.merge.error == "exact",
        ),
        "no counted copies, since no copy can be seen": (
            "copies.counted",
            bool(settings.copies.counted),
        ),
    }
    for expected, (found, is_there) in asked.items():
        if is_there:
            raise impossible(
                f"{expected}, in confidential mode",
                found,
                "remove it from federation.toml, or set trust_mode to auditable",
            )


def _require_wide(settings: FederationSettings, cohort: tuple[str, ...], rank: int) -> None:
    if settings.merge.rule != "sketch":
        return
    fault = sketch_fault(settings.merge.sketch_width, rank, _ranks(settings, cohort, rank))
    if fault is not None:
        raise impossible(*fault, "raise merge.sketch_width, or remove it: then it is the least")


def _require_step(
    settings: FederationSettings, cohort: tuple[str, ...], rank: int, trained: TrainedFactors
) -> None:
    ranks = _ranks(settings, cohort, rank)
    width = settings.merge.sketch_width or least_sketch_width(rank, ranks)
    clip_norm = (settings.masking or MaskingSection()).clip_norm
    exact = exact_sketch_width(rank, ranks)
    fault = step_fault(settings.merge_spec, trained, clip_norm, exact, width)
    if fault is not None:
        raise impossible(
            f"{fault[0]}, in confidential mode",
            fault[1],
            "correct merge.optimizer, or what it asks for, in federation.toml; docs/privacy.md "
            "says when fedexp can be masked",
        )


def _ranks(settings: FederationSettings, cohort: tuple[str, ...], rank: int) -> list[int]:
    own = settings.silo_adapters
    return [own[silo].rank if silo in own else rank for silo in cohort]


def _require_seen(settings: FederationSettings) -> None:
    if settings.merge.rule == "sketch":
        raise impossible(
            "the rule stack_truncate in auditable mode, of which sketch is what masks leave",
            "sketch",
            "set merge.rule to stack_truncate, or trust_mode to confidential",
        )
