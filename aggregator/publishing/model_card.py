"""The model card of a published adapter: a README for people who know nothing of the federation.

A pure function of the signed report's bundle and of the base model's tokenizer files, so a restart
writes the same bytes. Whoever reads it is outside: silos are counted, and named with their losses
only where the plan says so, which each silo's policy had to allow. No local path is in it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path

import yaml
from jinja2 import Template
from markupsafe import Markup

from aggregator.publishing.markdown_text import as_block, as_code, as_text, one_line, verbatim
from aggregator.publishing.prompt_format import ANSWER, PROMPT, TODAY, PromptFormat
from aggregator.report.bundle import Bundle
from aggregator.report.compliance_page.page import report_stem
from aggregator.report.limits import UNCHECKED
from aggregator.report.round_report import outcome_counts
from data_contracts.errors import FederationOperatorError
from data_contracts.licences.adapter_licence import NO_LICENCE
from data_contracts.licences.hub_licence import hub_licence
from data_contracts.privacy.assumptions import ASSUMPTIONS
from data_contracts.protocol.envelope import document_digest, unverified_record
from data_contracts.protocol.records import (
    Candidate,
    Evaluation,
    Membership,
    RoundPlan,
    RoundReport,
)
from data_contracts.protocol.records.base import RecordT
from data_contracts.protocol.records.model_family import ModelFamily
from data_contracts.protocol.records.round_report import SiloLosses
from infra.page_templates import page_environment

TEMPLATE_NAME = "model_card.md.j2"
LOSS_PLACES = 4
_PIPELINES: Mapping[ModelFamily, str] = {
    "causal-lm": "text-generation",
    "masked-lm": "fill-mask",
    "sequence-classification": "text-classification",
    "dual-encoder": "zero-shot-image-classification",
    "denoising": "text-to-image",
}
_LIBRARIES: Mapping[ModelFamily, str] = {"denoising": "diffusers"}
"""By which a hub tells how to load it; PEFT for the others."""

TAGS = ("consortia", "federated-learning", "lora")


@dataclass(frozen=True)
class CardRecords:
    """What a card is made of. `evaluations`: those of the report that are still there, by silo."""

    membership: Membership
    plan: RoundPlan
    candidate: Candidate
    report: RoundReport
    report_digest: str
    evaluations: Mapping[str, Evaluation]


@dataclass(frozen=True)
class AdapterLoss:
    """Held-out losses of one adapter, in the unit of the plan's task: the plain mean, and by silo;
    and the plain mean of what its first guess had `right`, where the family counts that."""

    adapter: str
    mean: Decimal
    by_silo: Mapping[str, Decimal]
    right: Decimal | None = None


def card_records(bundle: Bundle) -> CardRecords:
    """The records that a card needs; raises FederationOperatorError when the bundle lacks one.

    Nothing is verified here: whoever read the bundle's records from storage did that.
    """
    report = unverified_record(bundle.report, RoundReport)
    kinds = {ref.digest: ref for ref in report.evidence}
    evaluations = {
        ref.silo: unverified_record(envelope, Evaluation)
        for envelope in bundle.evidence
        if (ref := kinds[document_digest(envelope)]).kind == Evaluation.kind and ref.silo
    }
    return CardRecords(
        membership=_own(bundle, report, Membership),
        plan=_own(bundle, report, RoundPlan),
        candidate=_own(bundle, report, Candidate),
        report=report,
        report_digest=document_digest(bundle.report),
        evaluations=evaluations,
    )


def render_card(records: CardRecords, prompt: PromptFormat | None) -> bytes:
    """UTF-8 bytes of the card; `prompt` is None where the base model's files are not at hand."""
    report = records.report
    losses = {silo.silo: silo.losses for silo in report.silos if silo.losses is not None}
    card = _template().render(
        metadata=_metadata(records),
        name_of=records.membership.name_of,
        plan=records.plan,
        candidate=records.candidate,
        report=report,
        report_digest=records.report_digest,
        report_page=f"{report_stem(report)}.html",
        outcomes=outcome_counts(report),
        admitted=[silo for silo in report.silos if silo.outcome == "admitted"],
        measured=sorted(losses),
        loss_rows=loss_rows(losses, is_first=records.plan.starting_adapter is None),
        answer_tokens=_answer_tokens(records, losses),
        no_licence=NO_LICENCE,
        unchecked=UNCHECKED,
        prompt=prompt,
        classes=records.plan.learned.classes or (),
        epsilon=_largest_epsilon(report),
        assumptions=ASSUMPTIONS,
        placeholders=(PROMPT, ANSWER, TODAY),
    )
    return card.encode()


@cache
def _template() -> Template:
    """Every text that the template shows is made safe for Markdown, unless a filter did it."""
    environment = page_environment(Path(__file__).parent, finalize=as_text)
    environment.filters |= {
        "code": as_code,
        "block": as_block,
        "count": lambda number: f"{number:,}",
        "loss": lambda value: f"{value:.{LOSS_PLACES}f}",
        "share": lambda share: f"{share * 100:.1f} %",
        "python_list": _python_list,
        "percent": lambda share: f"{share * 100:.2f} %",
        "scaling": lambda layout: f"{layout.scaling:.4g}",
    }
    return environment.get_template(TEMPLATE_NAME)


def loss_rows(losses: Mapping[str, SiloLosses], *, is_first: bool) -> list[AdapterLoss]:
    """A row for each adapter, none where nobody measured.

    A run's first round starts from the base model, so there is no starting adapter to compare with.
    """
    names = [
        ("none: the base model alone", "base"),
        ("the one that the round began with", "starting"),
    ]
    names = [*names[: 1 if is_first else 2], ("this adapter", "candidate")]
    rows = []
    for adapter, field in names if losses else ():
        by_silo = {silo: Decimal(getattr(own, field)) for silo, own in losses.items()}
        shares = [getattr(own.right, field) for own in losses.values() if own.right is not None]
        right = _mean(shares) if len(shares) == len(losses) else None
        rows.append(AdapterLoss(adapter, _mean(list(by_silo.values())), by_silo, right))
    return rows


def _largest_epsilon(report: RoundReport) -> tuple[str, str, str]:
    """Of institutions that contributed: of the round, of all so far, and the largest delta."""
    said = [s.privacy for s in report.silos if s.outcome == "admitted" and s.privacy is not None]
    return (
        str(max((each.epsilon for each in said), default=Decimal())),
        str(max((each.epsilon_lifetime for each in said), default=Decimal())),
        f"{max((each.delta for each in said), default=Decimal()):f}",
    )


def _mean(values: Sequence[Decimal]) -> Decimal:
    return sum(values, Decimal()) / len(values)


def _python_list(values: Sequence[str], name: str) -> Markup:
    """A line of Python that gives a list its name; whatever the texts are, they stay texts."""
    listed = ", ".join(json.dumps(one_line(value)) for value in values)
    return as_block(f"{name} = [{listed}]", "python")


def _metadata(records: CardRecords) -> Markup:
    """YAML between its two rules, as a model hub reads it."""
    base, inherited = records.plan.base_model, records.report.adapter_licence
    fields: dict[str, object] = {}
    if base.hub_id is not None:
        fields |= {"base_model": base.hub_id, "base_model_relation": "adapter"}
    named = hub_licence(inherited.expression if inherited else NO_LICENCE)
    fields |= {"license": named.licence}
    if named.name is not None:
        fields |= {"license_name": named.name, "license_link": "README.md"}
    pipeline = _PIPELINES[records.plan.learned.family]
    library = _LIBRARIES.get(records.plan.learned.family, "peft")
    fields |= {"library_name": library, "pipeline_tag": pipeline, "tags": list(TAGS)}
    return verbatim(f"---\n{yaml.safe_dump(fields, sort_keys=False)}---")


def _answer_tokens(records: CardRecords, losses: Mapping[str, SiloLosses]) -> int | None:
    """Over how many the losses are means; None where an evaluation was erased from storage."""
    if not losses.keys() <= records.evaluations.keys():
        return None
    return sum(records.evaluations[silo].tokens for silo in losses)


def _own(bundle: Bundle, report: RoundReport, record_type: type[RecordT]) -> RecordT:
    """The coordinator's record of one kind."""
    listed = {ref.digest for ref in report.evidence if ref.kind == record_type.kind}
    found: Sequence[bytes] = [e for e in bundle.evidence if document_digest(e) in listed]
    if len(found) != 1:
        raise FederationOperatorError(
            f"model card of round {report.round}",
            expected=f"one {record_type.kind} in the report's bundle",
            found=f"{len(found)}",
            action="find out why storage withholds the coordinator's own records",
        )
    return unverified_record(found[0], record_type)
