"""What a plan is made of besides the settings, read from the feed, the contracts and the model."""

import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from aggregator.coordinator import CONTRACTS_DIRECTORY, Coordinator
from aggregator.feed.reading import plan_before
from aggregator.planning.agreed_contracts import agreed_contracts
from aggregator.planning.base_model_layout import adapter_targets
from aggregator.planning.starting_point import StartingPoint, starting_point
from data_contracts.dataset.contract import load_contract
from data_contracts.errors import ConsortiaError, DataStewardError, FederationOperatorError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Membership
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.model_family import CAUSAL, FamilyTask
from data_contracts.protocol.records.plan_terms import AdapterEncryption, ErasureRef
from data_contracts.protocol.trusted_feed import FeedPosition, TrustedFeed
from infra.base_model.coverage import coverage_words
from infra.base_model.folder_check import require_sound
from infra.base_model.tokenizer_files import has_template, writes_date
from infra.base_model.weight_files import Weights
from infra.disk.model_files import model_digest

log = logging.getLogger("consortia")


@dataclass(frozen=True)
class PlanInputs:
    """What a plan is made of besides the settings; `task_so_far` is what the run has learned.

    `encryption` is made for the attempt by whoever keeps its identity.
    """

    membership: Verified[Membership]
    head: FeedPosition
    base_model: BaseModelRef
    layout: AdapterLayout
    contract_digests: dict[str, str]
    starting: StartingPoint
    prompt_date: str | None
    now: datetime
    task_so_far: FamilyTask | None = None
    encryption: AdapterEncryption | None = None
    erasure: ErasureRef | None = None


def plan_inputs(c: Coordinator, feed: TrustedFeed) -> PlanInputs:
    """As of now; raises FederationOperatorError where too few contracts are in force."""
    before, now = plan_before(c, feed), c.clock.now()
    return PlanInputs(
        membership=feed.membership,
        head=feed.head,
        base_model=_base_model(c),
        layout=before.record.layout if before else _first_layout(c),
        contract_digests=_contract_digests(c, feed),
        starting=starting_point(c, feed),
        prompt_date=_prompt_date(c, before.record.day if before else f"{now:%Y-%m-%d}"),
        now=now,
        task_so_far=before.record.learned if before else None,
        erasure=feed.erasures.newest,
    )


def _prompt_date(c: Coordinator, day: str) -> str | None:
    """`day`, that with which the run began, where the model's template writes a date.

    In no other plan, so that silos of earlier releases can read those.
    """
    path = c.settings.path(c.settings.base_model.path)
    is_told = c.settings.task.family == CAUSAL and has_template(path)
    return day if is_told and writes_date(path) else None


def _base_model(c: Coordinator) -> BaseModelRef:
    model = c.settings.base_model
    _sound_weights(c)
    return BaseModelRef(
        name=model.name,
        digest=model_digest(c.settings.path(model.path), c.model_digests),
        licence=model.licence,
        licence_acceptance=model.licence_acceptance,
        hub_id=model.hub_id,
        hub_revision=model.hub_revision,
    )


def _first_layout(c: Coordinator) -> AdapterLayout:
    """The run's layout: later plans take that of the first, so that all rounds fit together."""
    adapter = c.settings.adapter
    model = c.settings.path(c.settings.base_model.path)
    targets = adapter_targets(model, adapter.target_modules, c.settings.task.learned)
    log.info("%s", coverage_words(_sound_weights(c), targets))
    return AdapterLayout(
        rank=adapter.rank,
        alpha=adapter.alpha,
        seed=adapter.seed,
        use_rslora=adapter.use_rslora,
        targets=targets,
    )


def _sound_weights(c: Coordinator) -> Weights:
    """Of the base model, which no silo is asked to train when it cannot be trained."""
    try:
        path = c.settings.path(c.settings.base_model.path)
        family = c.settings.task.family
        return require_sound(path, needs_template=_needs_template(c), family=family)
    except ConsortiaError as error:
        raise FederationOperatorError(
            error.problem, expected=error.expected, found=error.found, action=error.action
        ) from error


def _needs_template(c: Coordinator) -> bool:
    """Whether any contract that is filed is about records that the base model's chat template
    renders; plain text is trained on without one, and by other families everything."""
    if c.settings.task.family != CAUSAL:
        return False
    filed = sorted(c.settings.path(CONTRACTS_DIRECTORY).glob("*.yaml"))
    return not filed or any(map(_renders, filed))


def _renders(contract: Path) -> bool:
    try:
        return load_contract(contract).source.record_form.needs_template
    except DataStewardError:
        return True


def _contract_digests(c: Coordinator, feed: TrustedFeed) -> dict[str, str]:
    """Digest of each silo's contract, as filed and signed with `consortia contract sign`."""
    directory = c.settings.path(CONTRACTS_DIRECTORY)
    agreed = agreed_contracts(directory, feed, c.clock.now(), c.settings.task.learned)
    if len(agreed.digests) < c.settings.round.quorum and agreed.left_out:
        named = "; ".join(f"{silo}: {why}" for silo, why in agreed.left_out.items())
        raise FederationOperatorError(
            "round plan",
            expected="enough contracts, signed by both sides and in force, for the quorum",
            found=named,
            action="have them signed with `consortia contract sign`, or renewed",
        )
    return agreed.digests
