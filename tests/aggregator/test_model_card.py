"""The model card follows from the report's records; it names nobody unless the plan says so."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData
from markdown_it import MarkdownIt

from aggregator.attempt import Attempt, SiloRecords
from aggregator.publishing.model_card import card_records, loss_rows, render_card
from aggregator.publishing.prompt_format import PromptFormat
from aggregator.report.bundle import bundle_of
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import artifact_of_bytes
from data_contracts.protocol.envelope import document_digest, seal
from data_contracts.protocol.records import Evaluation
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.merge_spec import MergeSpec, RobustSpec
from data_contracts.protocol.records.plan_terms import PublicationRule
from data_contracts.protocol.records.round_report import SiloLosses
from data_contracts.protocol.records.verdict import LicenceCount
from infra.base_model.chat_template import Turn
from tests.aggregator.federation_samples import (
    COHORT,
    NAMES,
    Federation,
    adapter_ref,
    allowing,
    digest,
    federation,
    key,
    minutes,
)
from tests.aggregator.test_markdown_text import HOSTILE
from tests.data_contracts.record_samples import OWN_LICENCE

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
OWN = OWN_LICENCE.model_copy(update={"share_alike": True})
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROMPT = PromptFormat(
    Turn("<|im_start|>user\nTHE PROMPT<|im_end|>\n", "THE ANSWER<|im_end|>\n"),
    (("tokenizer.json", artifact_of_bytes(b"tokens")),),
)


def base(**changes: Any) -> BaseModelRef:
    fields: dict[str, Any] = {"name": "tiny", "digest": digest("base"), "licence": "Apache-2.0"}
    return BaseModelRef(**fields | changes)


def finished(fed: Federation, *silos: SiloRecords) -> Attempt:
    return fed.finished(list(silos) or [fed.silo("bank-a"), fed.silo("hospital-b")])


def card(fed: Federation, attempt: Attempt, prompt: PromptFormat | None = PROMPT) -> str:
    bundle = bundle_of(fed.report(attempt), attempt)
    return render_card(card_records(bundle), prompt).decode()


def metadata(text: str) -> dict[str, Any]:
    """As the hub's own library reads it."""
    parsed = ModelCard(text, ignore_metadata_errors=False)
    assert isinstance(parsed.data, ModelCardData)
    data: Any = parsed.data
    return dict(data.to_dict())


def headings(text: str) -> list[str]:
    tokens = MarkdownIt("commonmark").enable("table").parse(ModelCard(text).text)
    return [
        tokens[place + 1].content
        for place, token in enumerate(tokens)
        if token.type == "heading_open" and token.tag == "h2"
    ]


SECTIONS = [
    *("Licence", "Purpose", "How to load it", "Prompt format", "Tokenizer"),
    *("Who trained it, and how", "Held-out losses", "Limits", "How to verify it"),
]


def test_a_hub_reads_the_metadata() -> None:
    fed = federation(base_model=base(hub_id=HUB_ID, hub_revision=COMMIT))
    text = card(fed, finished(fed))
    assert metadata(text) == {
        "base_model": HUB_ID,
        "base_model_relation": "adapter",
        "license": "apache-2.0",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["consortia", "federated-learning", "lora"],
    }
    assert headings(text) == SECTIONS
    assert f'"{HUB_ID}", revision="{COMMIT}"' in text
    assert "AutoPeftModelForCausalLM" in text


def test_without_a_repository_the_card_says_that_peft_finds_nothing() -> None:
    text = card(fed := federation(), finished(fed))
    assert "base_model" not in metadata(text)
    assert "AutoPeftModelForCausalLM" not in text
    assert "PEFT cannot find it by itself" in text


def test_a_card_says_where_institutions_may_have_done_fewer_steps() -> None:
    fed = allowing(4)
    assert "or fewer where one can do no more, from 4 steps on |" in card(fed, finished(fed))
    plain = federation()
    assert "or fewer" not in card(plain, finished(plain))


def test_what_a_model_user_has_to_know_is_there() -> None:
    fed = federation()
    attempt = finished(fed)
    text = card(fed, attempt)
    report = fed.report(attempt)
    for said in (
        fed.plan.record.purpose,
        f"`{digest('base')}`",
        f"`{adapter_ref('candidate').digest}`",
        f"`{report.digest}`",
        "`run-one-round-0002.html`",
        "Round 2 of run `run-one`",
        f"`{adapter_ref('start').digest}`",
        "Of 3 institutions that were asked, 2 contributed",
        "1.23 % of the squared norm of the weighted sum",
        "10 steps of 8 sequences of at most 128 tokens",
        "measured 1,800 answer tokens",
        "nats per answer token",
        "no differential privacy",
        "no medical device",
        "merge arithmetic",
        "THE PROMPT<|im_end|>",
        artifact_of_bytes(b"tokens").digest,
    ):
        assert said in text, said
    assert document_digest(report.envelope) == report.digest


def test_the_same_records_give_the_same_bytes() -> None:
    fed = federation()
    attempt = finished(fed)
    turned = replace(attempt, silos=dict(reversed(list(attempt.silos.items()))))
    assert card(fed, attempt) == card(fed, turned)


@pytest.mark.parametrize("named", [False, True])
def test_institutions_are_named_only_where_the_plan_says_so(named: bool) -> None:
    rule = PublicationRule(
        max_mean_increase=Decimal(0), max_silo_increase=Decimal("0.1"), name_silos=named
    )
    fed = federation(publication=rule)
    text = card(fed, finished(fed))
    assert [NAMES[silo] in text for silo in COHORT] == [named, named, False]
    assert not any(silo in text for silo in COHORT), "an id says nothing to who uses the model"
    assert ("| Harbour Savings Bank | 3.2000 | 2.9000 | 2.6000 |" in text) == named
    assert "| this adapter | 2.6000 |" in text


def test_means_are_plain_means_over_institutions() -> None:
    losses = {
        silo: SiloLosses(
            base=Decimal(base), starting=Decimal(2), candidate=Decimal(candidate), silo_only=None
        )
        for silo, base, candidate in (("b", "4", "1.5"), ("a", "3", "1"))
    }
    rows = loss_rows(losses, is_first=False)
    assert [row.mean for row in rows] == [Decimal("3.5"), Decimal(2), Decimal("1.25")]
    assert rows[2].by_silo == {"a": Decimal(1), "b": Decimal("1.5")}
    assert [row.adapter for row in loss_rows(losses, is_first=True)] == [
        "none: the base model alone",
        "this adapter",
    ]
    assert loss_rows({}, is_first=True) == []


def test_the_first_round_has_nothing_before_it() -> None:
    text = card(fed := federation(starting_adapter=None, round=1), finished(fed))
    assert "the round began with the base model alone" in text
    assert "the one that the round began with" not in text


def licensed(fed: Federation, silo: str, licence: str) -> SiloRecords:
    own = (OWN,) if licence == OWN.licence else ()
    counts = (LicenceCount(licence=licence, records=100),)
    verdict = fed.verdict(silo, licences=counts, registered_licences=own)
    return fed.silo(silo, verdict=verdict, submission=fed.submission(silo, verdict))


@pytest.mark.parametrize(
    ("base_licence", "data", "wanted", "said"),
    [
        ("Apache-2.0", "MIT", {"license": "apache-2.0"}, "passed on under `Apache-2.0`"),
        (
            "Apache-2.0",
            "CC-BY-SA-4.0",
            {"license": "other", "license_name": "apache-2.0-and-cc-by-sa-4.0"},
            "- CC-BY-SA-4.0 asks for the same terms on what is made from the data",
        ),
        ("LicenseRef-Gemma-Terms", "MIT", {"license": "gemma"}, "`LicenseRef-Gemma-Terms`"),
        (
            "GPL-3.0-only",
            "CC-BY-SA-4.0",
            {"license": "other", "license_name": "no-licence"},
            "**No licence can be given: do not pass this adapter on.**",
        ),
        (
            "MIT",
            OWN.licence,
            {"license": "other", "license_name": "own-and-mit"},
            f"- {OWN.licence} asks for the same terms",
        ),
    ],
)
def test_the_licence_has_its_reasons(
    base_licence: str, data: str, wanted: dict[str, str], said: str
) -> None:
    fed = federation(base_model=base(licence=base_licence))
    attempt = finished(fed, licensed(fed, "bank-a", data), licensed(fed, "hospital-b", "MIT"))
    text = card(fed, attempt)
    found = metadata(text)
    assert wanted.items() <= found.items()
    assert ("license_name" in found) == (found["license"] == "other")
    assert said in text
    assert "MIT asks to name its authors and notices" in text or "cannot both be kept" in text


@pytest.mark.parametrize("text", HOSTILE[:-1])
def test_hostile_names_change_neither_metadata_nor_sections(text: str) -> None:
    fed = federation(purpose=text, base_model=base(name=text, licence_acceptance=text))
    plain = federation(base_model=base(licence_acceptance="a"))
    found, expected = card(fed, finished(fed)), card(plain, finished(plain))
    assert metadata(found) == metadata(expected)
    assert headings(found) == SECTIONS
    rendered = MarkdownIt("commonmark").enable("table").render(ModelCard(found).text)
    for tag in ("<script", "<img", "<a ", "<strong>b"):
        assert tag not in rendered
    for tag in ("<tr>", "<pre>", "<li>", "<blockquote>", "<h1>", "<ol>"):
        assert rendered.count(tag) == MarkdownIt("commonmark").enable("table").render(
            ModelCard(expected).text
        ).count(tag)


def test_a_template_s_date_is_said_where_there_is_one() -> None:
    sample = PromptFormat(Turn("On TODAY: THE PROMPT", "THE ANSWER"), ())
    dated, before = federation(prompt_date="2026-03-01"), federation()
    said = "had 2026-03-01 there whatever the day was"
    assert said in " ".join(card(dated, finished(dated), sample).split())
    assert said not in " ".join(card(dated, finished(dated)).split())
    old = " ".join(card(before, finished(before), sample).split())
    assert "the date where `TODAY` stands):" in old


def test_a_sample_with_fences_of_its_own_stays_one_block() -> None:
    sample = PromptFormat(Turn("```\n---\n# Evil\n````\nTHE PROMPT", "THE ANSWER"), ())
    fed = federation()
    text = card(fed, finished(fed), sample)
    assert headings(text) == SECTIONS


def test_without_the_base_models_files_the_format_is_described() -> None:
    fed = federation()
    for prompt in (None, PromptFormat(None, ())):
        text = card(fed, finished(fed), prompt)
        assert "THE PROMPT" not in text
        assert "`tokenizer.chat_template`" in text
        assert "apply_chat_template" in text


def test_an_evaluation_that_was_erased_leaves_its_losses_and_no_token_count() -> None:
    fed = federation()
    attempt = finished(fed)
    bundle = bundle_of(fed.report(attempt), attempt)
    gone = attempt.of("bank-a").evaluation
    assert gone is not None
    kept = replace(bundle, evidence=tuple(e for e in bundle.evidence if e != gone.envelope))
    text = render_card(card_records(kept), PROMPT).decode()
    assert "| this adapter | 2.6000 |" in text
    assert "answer tokens |" not in text and "1,800" not in text


def test_a_bundle_without_the_coordinators_records_gives_no_card() -> None:
    fed = federation()
    attempt = finished(fed)
    bundle = bundle_of(fed.report(attempt), attempt)
    assert attempt.candidate is not None
    envelope = attempt.candidate.envelope
    lacking = replace(bundle, evidence=tuple(e for e in bundle.evidence if e != envelope))
    with pytest.raises(FederationOperatorError, match="expected one candidate"):
        card_records(lacking)


def test_a_residual_is_named_and_loaded() -> None:
    fed = federation(merge=MergeSpec(rule="residual", weight_cap_tokens=8000, residual_rank=3))
    silos = [fed.silo("bank-a"), fed.silo("hospital-b")]
    close = fed.close(silos)
    residual = artifact_of_bytes(b"residual")
    candidate = fed.candidate(close, merge_rule="residual", residual=residual)
    evaluations = {s.silo: fed.evaluation(s.silo, candidate) for s in silos}
    decision = fed.decision(candidate, evaluations)
    attempt = fed.attempt(
        silos, close=close, candidate=candidate, evaluations=evaluations, decision=decision
    )
    text = card(fed, attempt)
    assert residual.digest in text
    assert 'model.load_adapter("published/residual", adapter_name="residual")' in text
    assert "rank 3" in text


def test_a_defence_is_told() -> None:
    spec = MergeSpec(
        rule="stack_truncate",
        weight_cap_tokens=8000,
        robust=RobustSpec(tolerated_silos=0, rule="mean", mixing="none"),
    )
    fed = federation(merge=spec, quorum=3)
    text = card(fed, finished(fed, *(fed.silo(silo) for silo in COHORT)))
    assert "| Defence | `mean` against up to 0 institutions |" in text
    assert "The merge had no defence" not in text


def test_who_accepted_the_base_models_terms_is_nobodys_business() -> None:
    accepted = "LicenseRef-Gemma-Terms accepted by A. Person"
    gemma = base(licence="LicenseRef-Gemma-Terms", licence_acceptance=accepted)
    plain, conditional = federation(), federation(base_model=gemma)
    text = card(conditional, finished(conditional))
    assert "A. Person" not in text
    assert "accept them for yourself" in text
    assert "accept them for yourself" not in card(plain, finished(plain))


def test_no_path_of_a_machine_is_in_it(tmp_path: Path) -> None:
    fed = federation()
    text = card(fed, finished(fed))
    assert str(tmp_path.parent) not in text and str(Path.cwd()) not in text


def test_evaluations_of_one_silo_are_told_apart() -> None:
    fed = federation()
    silos = [fed.silo("bank-a"), fed.silo("hospital-b")]
    close = fed.close(silos)
    candidate = fed.candidate(close)
    evaluations = {
        "bank-a": fed.evaluation("bank-a", candidate, tokens=7, candidate_loss=Decimal("2.0")),
        "hospital-b": fed.evaluation("hospital-b", candidate, tokens=11),
    }
    decision = fed.decision(candidate, evaluations)
    attempt = fed.attempt(
        silos, close=close, candidate=candidate, evaluations=evaluations, decision=decision
    )
    text = card(fed, attempt)
    assert "measured 18 answer tokens" in text
    assert "| this adapter | 2.3000 |" in text
    records = card_records(bundle_of(fed.report(attempt), attempt))
    assert isinstance(records.evaluations["bank-a"], Evaluation)
    assert records.report_digest == seal(records.report, key("coordinator")).digest
    assert minutes(126) == records.report.issued_at
