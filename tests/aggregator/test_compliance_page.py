"""What a compliance officer can read on the page, and that nobody else can change a word of it."""

import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from aggregator.attempt import Attempt, SiloRecords
from aggregator.audit.page_audit import AS_SIGNED, FOLLOWS
from aggregator.audit.report_audit import audit
from aggregator.decisions import admission, admission_rules
from aggregator.report.bundle import Bundle, bundle_of, pack_bundle
from aggregator.report.compliance_page import page as renderer
from aggregator.report.compliance_page.loss_change import (
    Error,
    LossRow,
    loss_row,
    mean_row,
    pooled_error,
    student_quantile,
)
from aggregator.report.compliance_page.page import Page, render, split_page
from aggregator.report.compliance_page.wording import duration, rejection
from aggregator.report.files import (
    read_report_file,
    report_with_page,
    whole_files,
    write_report_files,
)
from aggregator.report.limits import NOT_COVERED, UNCHECKED
from aggregator.report.report_file import ReportFile, signed_page
from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.dsse import fingerprint, to_base64
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import RoundReport
from data_contracts.protocol.records.candidate import SiloInfluence
from data_contracts.protocol.records.round_report import PageRef
from data_contracts.protocol.records.verdict import LicenceCount, RuleOutcome
from tests.aggregator.federation_samples import (
    COHORT,
    OTHER_RULES,
    RULE,
    federation,
    key,
    minutes,
    page_file,
)

FED = federation(purpose='Coding <script>alert(1)</script> & "letters"')
DUPLICATES = RuleOutcome(
    rule="duplicates.near",
    type="expect_column_values_to_be_in_set",
    success=False,
    severity="warning",
    element_count=729,
    unexpected_count=97,
    tolerated_per_mille=100,
)
MINIMUM = RuleOutcome(
    rule="records.minimum",
    type="expect_column_unique_value_count_to_be_between",
    success=True,
    severity="critical",
    element_count=729,
    unexpected_count=0,
    at_least=500,
)
DRIFT = RuleOutcome(
    rule="drift.since_last_round",
    type="expect_column_values_to_be_between",
    success=True,
    severity="critical",
    element_count=0,
    unexpected_count=None,
    at_most=250,
)
REPEATS_OF_REQUIRED = tuple(o for o in OTHER_RULES if o.rule != MINIMUM.rule)


def with_duplicates(silo: str) -> SiloRecords:
    outcomes = (RULE, *REPEATS_OF_REQUIRED, MINIMUM, DUPLICATES, DRIFT)
    licences = (
        LicenceCount(licence="CC-BY-4.0", records=640),
        LicenceCount(licence="MIT", records=None),
    )
    verdict = FED.verdict(silo, outcomes=outcomes, licences=licences, offered=729, used=639)
    return FED.silo(silo, verdict=verdict, submission=FED.submission(silo, verdict))


def published() -> Attempt:
    refused = SiloRecords("hospital-c", refusal=FED.refusal("hospital-c"))
    return FED.finished([FED.silo("bank-a"), with_duplicates("hospital-b"), refused])


PUBLISHED = published()
TEXT = FED.page_text(PUBLISHED)


def page_of(attempt: Attempt) -> Page:
    return split_page(FED.page(attempt).encode())


class TestWhatItAnswers:
    """One question of a compliance officer each, answered by the page alone."""

    def test_what_happened(self) -> None:
        assert "The merged adapter was published. On held-out data" in TEXT
        assert "2 of 3 institutions contributed, 1 refused." in TEXT

    def test_who_took_part_and_who_refused_and_why(self) -> None:
        assert "Harbour Savings Bank bank-a admitted" in TEXT
        assert (
            "County Hospital South hospital-c refused "
            "It says: The purpose is not among those that the policy allows." in TEXT
        )

    def test_how_much_each_one_counts(self) -> None:
        assert "5,000 50.0 %" in TEXT
        assert "at most 8,000 in a round, divided by the sum over all that were admitted" in TEXT

    def test_who_agreed_and_when(self) -> None:
        assert (
            "Data contract Discharge letters of bank-a, version 1.2.0 "
            "Harbour Savings Bank and the coordinator 31 January 2026, 09:00 UTC" in TEXT
        )
        assert "Takes part in this round under its own policy Harbour Savings Bank 2 March" in TEXT
        assert "Membership number 1: who belongs to the federation" in TEXT
        assert "root keys (1 of 1 sign) 2 March 2026, 09:00 UTC" in TEXT
        assert fingerprint(key("bank-a").public_key_hex) in TEXT

    def test_which_data(self) -> None:
        assert "Discharge letters of hospital-b, version 1.2.0 hospital-b-letters" in TEXT
        assert "639 or up to 9 fewer 729 CC-BY-4.0: 640 records MIT: number stays there" in TEXT

    def test_what_was_checked_with_the_limit_beside_the_count(self) -> None:
        assert "warning 97 of 729 records at most 100 of 1,000" in TEXT
        assert "holds one number about the whole set at least 500" in TEXT
        assert "a population stability index of at most 0.25" in TEXT
        assert "holds 0 of 1,200 records none" in TEXT
        assert "expect_" not in TEXT
        assert "great_expectations" not in FED.page(PUBLISHED).lower()

    def test_rules_that_hold_are_folded_and_broken_ones_are_not(self) -> None:
        shown = FED.page(PUBLISHED)
        open_part = re.sub(r"<details>.*?</details>", "", shown, flags=re.DOTALL)
        assert "duplicates.near" in open_part
        assert "records.minimum" not in open_part
        assert f"{len(REPEATS_OF_REQUIRED) + 3} rules hold" in TEXT

    def test_what_left_each_institution_in_bytes(self) -> None:
        own = PUBLISHED.of("bank-a")
        sizes = [len(v.envelope) for v in own.records()]
        assert own.submission is not None
        together = sum(sizes) + own.submission.record.adapter.size
        acceptance, verdict, submission, losses = sizes
        assert (
            f"{acceptance:,} {verdict:,} {submission:,} {losses:,} "
            f"{own.submission.record.adapter.size:,} {together:,}" in TEXT
        )
        refusal = PUBLISHED.of("hospital-c").refusal
        assert refusal is not None
        none = " ".join(4 * "\N{EN DASH}")
        assert f"{len(refusal.envelope):,} {none} {len(refusal.envelope):,}" in TEXT

    def test_better_or_worse_for_whom_and_how_sure(self) -> None:
        # t(39) = 2.0227; -0.3 +- 2.0227 * 0.05
        assert (
            "Harbour Savings Bank 40 -0.3000 -0.4011 to -0.1989 better "
            "-0.6000 -0.7416 to -0.4584 better" in TEXT
        )
        # sqrt(2) * 0.05 / 2 * t(78), of 2 * 39 degrees of freedom
        assert "Mean over institutions 80 -0.3000 -0.3704 to -0.2296 better" in TEXT
        assert "Harbour Savings Bank 3.2000 2.7500 2.9000 2.6000" in TEXT

    def test_which_rule_published_it_within_which_limits_and_who_set_them(self) -> None:
        assert "by the rule evaluation.not_worse" in TEXT
        assert "Mean loss may rise by nothing; it changed by -0.3000" in TEXT
        assert "at most 0.1 nats per token; the largest change was -0.3000" in TEXT
        assert "The federation operator set these limits in the plan of 2 March 2026" in TEXT

    def test_how_to_verify(self) -> None:
        assert "consortia report verify run-one-round-0002.html --trust membership.json" in TEXT

    def test_what_was_not_checked_is_the_list_of_the_tool(self) -> None:
        claims = audit(bundle_of(FED.report(PUBLISHED), PUBLISHED), FED.membership)
        for name, why in UNCHECKED:
            assert f"{name.capitalize()}: {why}." in TEXT
            assert (name, "not checked", why) in [(c.name, c.outcome, c.detail) for c in claims]
        for sentence in NOT_COVERED:
            assert sentence in TEXT


class TestOtherOutcomes:
    def test_held(self) -> None:
        worse = FED.finished([FED.silo(s) for s in COHORT], candidate_loss=Decimal("2.95"))
        text = FED.page_text(worse)
        assert "The merged adapter was held back; the previous one stays in force." in text
        assert "+0.0500 -0.0511 to +0.1511 no clear difference" in text

    def test_aborted_before_anything_was_judged(self) -> None:
        aborted = FED.attempt([FED.silo("bank-a")], abort=FED.abort())
        page = FED.page(aborted)
        assert "The attempt was aborted; no adapter was published." in page
        assert "Too few submissions were admitted." in page
        assert "What it sent was in order, but the attempt was aborted." in page
        assert "<svg" not in page

    def test_a_failed_contract_names_what_it_asks(self) -> None:
        outcomes = (RULE.model_copy(update={"success": False}), *OTHER_RULES)
        failing = FED.verdict("hospital-c", passed=False, outcomes=outcomes)
        own = SiloRecords("hospital-c", FED.acceptance("hospital-c"), verdict=failing)
        text = FED.page_text(FED.finished([FED.silo("bank-a"), FED.silo("hospital-b"), own]))
        assert "Its data failed its own contract, which asks: Every record has a licence" in text

    def test_counts_that_may_not_leave(self) -> None:
        silent = RULE.model_copy(update={"element_count": 0, "unexpected_count": None})
        verdict = FED.verdict("bank-a", outcomes=(silent, *OTHER_RULES), offered=None, used=None)
        own = FED.silo("bank-a", verdict=verdict, submission=FED.submission("bank-a", verdict))
        text = FED.page_text(FED.finished([own, FED.silo("hospital-b")]))
        assert "the number stays in the institution" in text
        assert "stays there stays there" in text

    def test_an_evaluation_without_moments_has_no_range(self) -> None:
        bare = FED.finished(
            [FED.silo(s) for s in COHORT], records=None, change_error=None, base_change_error=None
        )
        assert "-0.3000 lower" in FED.page_text(bare)

    @pytest.mark.parametrize("records", [0, 1, 9])
    def test_hostile_moments_do_not_stop_the_page(self, records: int) -> None:
        odd = FED.finished([FED.silo(s) for s in COHORT], records=records)
        assert "-0.3000 lower" in FED.page_text(odd)

    @pytest.mark.parametrize(
        ("seen", "says"),
        [
            ({"is_agreed": False}, "carries no agreement, signed by both sides"),
            ({"is_agreed": False, "equivocated": True}, "signed two different records"),
            ({"is_agreed": False, "withdrew": True}, "took away what it had sent"),
        ],
    )
    def test_an_agreement_that_nobody_judged_is_not_shown(
        self, seen: dict[str, bool], says: str
    ) -> None:
        alone = FED.agreement_by(key("hospital-c"), silo="hospital-c")
        acceptance = FED.acceptance("hospital-c", agreement=to_base64(alone))
        own = FED.silo("hospital-c", acceptance=acceptance, **seen)
        attempt = FED.finished([FED.silo("bank-a"), FED.silo("hospital-b"), own])
        text = FED.page_text(attempt)
        assert says in text
        assert "Discharge letters of hospital-c" not in text

    def test_that_of_a_silo_that_was_late_is(self) -> None:
        verdict = FED.verdict("hospital-c")
        late = FED.submission("hospital-c", verdict, issued_at=minutes(100))
        own = FED.silo("hospital-c", verdict=verdict, submission=late)
        attempt = FED.finished([FED.silo("bank-a"), FED.silo("hospital-b"), own])
        assert "Discharge letters of hospital-c" in FED.page_text(attempt)


class TestHostileRecords:
    """What one institution writes into its records changes its own row at most."""

    def test_its_own_words_do_not_explain_a_rejection(self) -> None:
        lie = FED.refusal("bank-a", round=7, rule="binding.round", reason="The storage failed us.")
        own = FED.silo("bank-a", refusal=lie)
        text = FED.page_text(FED.finished([own, FED.silo("hospital-b"), FED.silo("hospital-c")]))
        assert "The storage failed us." not in text
        assert "A record of it belongs to another round, plan or institution." in text
        assert "Does not take part in this round Harbour" not in text
        assert "under its own policy Harbour" not in text

    @pytest.mark.parametrize("reason", ["", "\u202eno", "a\nb", "bell\x07"])
    def test_a_reason_is_one_line_that_can_be_seen(self, reason: str) -> None:
        with pytest.raises(ValidationError):
            FED.refusal("bank-a", reason=reason)

    def test_a_candidate_with_influences_nobody_planned_fails_and_does_not_raise(self) -> None:
        silos = [FED.silo(s) for s in COHORT]
        close = FED.close(silos)
        influence = SiloInfluence(
            silo="bank-a",
            influence=Decimal(1),
            kept=Decimal(1),
            norm=Decimal(1),
            distance=None,
            alarm=False,
        )
        candidate = FED.candidate(close, influences=(influence,))
        evaluations = {s: FED.evaluation(s, candidate) for s in COHORT}
        decision = FED.decision(candidate, evaluations)
        attempt = FED.attempt(
            silos, close=close, candidate=candidate, evaluations=evaluations, decision=decision
        )
        failing = [
            c.name for c in audit(FED.bundle(attempt), FED.membership) if c.outcome == "fail"
        ]
        assert "merge as planned" in failing
        assert "Defence" not in FED.page_text(attempt)

    def test_an_aborted_attempt_says_so_throughout(self) -> None:
        silos = [FED.silo(s) for s in COHORT]
        aborted = replace(FED.finished(silos), abort=FED.abort(rule="operator.abort"))
        text = FED.page_text(aborted)
        assert "The attempt was aborted; no adapter was published." in text
        assert "Aborted on 2 March 2026, 10:04 UTC by the rule operator.abort" in text
        assert "Published on" not in text
        assert "Held on" not in text
        assert "It may be passed on" not in text

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.decimals(0, 10**6, places=20),
                st.decimals(0, 10**6, places=20),
                st.decimals(0, 10**6, places=20) | st.none(),
                st.integers(0, 2**53 - 1) | st.none(),
            ),
            min_size=3,
            max_size=3,
        )
    )
    def test_whatever_it_says_of_losses_there_is_a_decision_and_a_page(
        self, said: list[tuple[Decimal, Decimal, Decimal | None, int | None]]
    ) -> None:
        silos = [FED.silo(s) for s in COHORT]
        close = FED.close(silos)
        candidate = FED.candidate(close)
        evaluations = {
            silo: FED.evaluation(
                silo,
                candidate,
                starting_loss=starting,
                candidate_loss=after,
                change_error=error,
                records=records,
            )
            for silo, (starting, after, error, records) in zip(COHORT, said, strict=True)
        }
        attempt = FED.attempt(
            silos,
            close=close,
            candidate=candidate,
            evaluations=evaluations,
            decision=FED.decision(candidate, evaluations),
        )
        file = ReportFile(FED.bundle(attempt), split_page(FED.page(attempt).encode()))
        claims = audit(file.bundle, FED.membership, page=file.page)
        assert [claim.name for claim in claims if claim.outcome == "fail"] == []


class TestStatistics:
    def row(self, records: int | None, error: str | None) -> LossRow:
        candidate = FED.candidate(FED.close([FED.silo(s) for s in COHORT]))
        size = None if error is None else Decimal(error)
        losses = {"starting_loss": Decimal("2.7"), "candidate_loss": Decimal("2.6")}
        evaluation = FED.evaluation(
            "bank-a", candidate, records=records, change_error=size, **losses
        )
        return loss_row("bank-a", evaluation.record)

    def test_one_institution_and_the_mean_over_it_say_the_same(self) -> None:
        row = self.row(10, "0.048")
        assert row.change.says == "no clear difference"
        assert mean_row([row]).change.says == row.change.says
        assert mean_row([row]).change.low == row.change.low

    def test_where_the_number_is_withheld_the_least_is_taken(self) -> None:
        withheld, ten = self.row(None, "0.048"), self.row(10, "0.048")
        assert (withheld.records, withheld.change) == (None, ten.change)

    def test_of_few_records_neither_number_nor_range_is_shown_or_added(self) -> None:
        few, enough = self.row(5, "0.001"), self.row(40, "0.05")
        assert (few.records, few.change.low) == (None, None)
        mean = mean_row([few, enough])
        assert (mean.records, mean.change.low) == (None, None)

    def test_an_error_of_zero_is_a_range_of_one_point(self) -> None:
        mean = mean_row([self.row(40, "0"), self.row(40, "0")])
        assert mean.change.low == mean.change.high == Decimal("-0.1")

    def test_coverage_of_the_pooled_range_is_that_which_is_said(self) -> None:
        """Two institutions of 10 and 30 records with different spreads, 4,000 times."""
        chance = np.random.default_rng(7)
        spreads, sizes = np.array([1.0, 0.3]), np.array([10, 30])
        held = 0
        for _ in range(4000):
            samples = [chance.normal(0, s, n) for s, n in zip(spreads, sizes, strict=True)]
            errors = [
                Error(Decimal(float(x.std(ddof=1) / len(x) ** 0.5)), Decimal(len(x) - 1))
                for x in samples
            ]
            pooled = pooled_error(errors)
            assert pooled is not None
            half = pooled.size * student_quantile(pooled.freedom)
            held += abs(sum(x.mean() for x in samples) / 2) <= half
        assert 0.94 < held / 4000 < 0.96


class TestWords:
    def test_every_rule_of_admission_has_a_sentence(self) -> None:
        modules = (admission, admission_rules)
        files = (Path(str(module.__file__)) for module in modules)
        source = "".join(file.read_text(encoding="utf-8") for file in files)
        rules = set(re.findall(r'"([a-z_]+\.[a-z_]+)"', source)) - {"verdict.failed"}
        assert len(rules) > 12
        assert [rule for rule in sorted(rules) if rejection(rule) == rejection("of.tomorrow")] == []

    @pytest.mark.parametrize(
        ("rule", "says"),
        [
            ("binding.attempt", "belongs to another round"),
            ("adapter.not_finite", "not of the form"),
            ("blob.digest", "not the one that it signed"),
            ("of.tomorrow", "The coordinator did not count it."),
        ],
    )
    def test_rules_of_a_kind_and_of_a_later_version_too(self, rule: str, says: str) -> None:
        assert says in rejection(rule)

    @pytest.mark.parametrize(
        ("seconds", "says"),
        [
            (0, "no time"),
            (1, "1 second"),
            (61, "1 minute 1 second"),
            (7560, "2 hours 6 minutes"),
            (90061, "1 day 1 hour"),
        ],
    )
    def test_durations(self, seconds: float, says: str) -> None:
        assert duration(seconds) == says

    @pytest.mark.parametrize(
        ("freedom", "expected"), [(9, "2.262"), (39, "2.023"), (120, "1.980"), (10**6, "1.960")]
    )
    def test_the_quantile_is_that_of_the_tables(self, freedom: int, expected: str) -> None:
        assert abs(student_quantile(Decimal(freedom)) - Decimal(expected)) < Decimal("0.001")


class TestSigned:
    """The coordinator signs the page's digest."""

    def test_it_is_self_contained_and_escapes_text(self) -> None:
        page = FED.page(PUBLISHED)
        assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
        assert "<script>alert" not in page
        assert "Coding &lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;letters&#34;" in page
        assert page.count("<script") == 1
        assert re.search(r"(src|href)\s*=|url\(|@import|https?:", page) is None
        bundle = bundle_of(FED.report(PUBLISHED), PUBLISHED)
        assert page_of(PUBLISHED).bundle == pack_bundle(bundle)

    def test_every_digest_of_the_evidence_is_on_it(self) -> None:
        for ref in FED.report(PUBLISHED).record.evidence:
            assert ref.digest in TEXT

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"The merged adapter was published.", b"The merged adapter was praised."),
            (b"97 of 729", b"7 of 729"),
            (b"</main>", b"<p>Approved by the ministry.</p></main>"),
            (b"--good: #1c6b43", b"--good: #1c6b44"),
            (b"</html>", b"</html>\n"),
        ],
    )
    def test_a_word_that_was_changed_is_found(self, tmp_path: Path, old: bytes, new: bytes) -> None:
        files = write_report_files(FED.report(PUBLISHED), PUBLISHED, tmp_path)
        page = page_file(files).read_bytes()
        assert page.count(old) >= 1
        page_file(files).write_bytes(page.replace(old, new, 1))
        found = read_report_file(page_file(files))
        claims = audit(found.bundle, FED.membership, page=found.page)
        assert [c.name for c in claims if c.outcome == "fail"] == ["page as signed"]

    def test_a_page_of_another_round_is_found(self) -> None:
        other = page_of(FED.finished([FED.silo(s) for s in COHORT]))
        bundle = bundle_of(FED.report(PUBLISHED), PUBLISHED)
        claims = audit(bundle, FED.membership, page=other)
        assert [c.name for c in claims if c.outcome == "fail"] == ["page as signed"]

    def test_a_coordinator_that_signs_another_page_is_found(self) -> None:
        report = report_with_page(PUBLISHED, minutes(126))
        lying = Page(render(report, PUBLISHED.settled().evidence()) + b"All is well.", b"")
        page = PageRef(renderer=renderer.RENDERER, digest=lying.digest)
        signed = seal(report.model_copy(update={"page": page}), key("coordinator"))
        claims = audit(bundle_of(signed, PUBLISHED), FED.membership, page=lying)
        assert [c.name for c in claims if c.outcome == "fail"] == ["page follows from evidence"]

    def test_another_version_s_page_is_held_against_its_digest_alone(self, tmp_path: Path) -> None:
        files = write_report_files(FED.report(PUBLISHED), PUBLISHED, tmp_path)
        found = read_report_file(page_file(files))
        theirs = replace_renderer(found, renderer.RENDERER + 1)
        assert page_claims_of(theirs) == ("pass", "not checked")
        assert page_claims_of(ReportFile(theirs.bundle)) == ("not checked", "not checked")
        assert signed_page(ReportFile(theirs.bundle)) is None
        assert signed_page(theirs) is not None
        changed = replace(theirs, page=Page(found.page.shown + b" ", b"") if found.page else None)
        assert page_claims_of(changed) == ("fail", "not checked")

    def test_after_an_upgrade_the_old_page_stays_and_a_lost_one_is_not_made_up(
        self, tmp_path: Path
    ) -> None:
        files = write_report_files(FED.report(PUBLISHED), PUBLISHED, tmp_path)
        found = read_report_file(page_file(files))
        report = other_version(renderer.RENDERER + 1)
        theirs = replace(found, bundle=bundle_of(report, PUBLISHED))
        old = signed_page(theirs)
        assert old is not None
        page_file(files).write_bytes(old)
        assert write_report_files(report, PUBLISHED, tmp_path) == files
        assert page_file(files).read_bytes() == old
        assert whole_files(report, tmp_path) == files
        page_file(files).unlink()
        assert write_report_files(report, PUBLISHED, tmp_path).page is None
        assert whole_files(report, tmp_path) == replace(files, page=None)

    def test_without_all_evidence_it_is_not_made_again(self) -> None:
        bundle = bundle_of(FED.report(PUBLISHED), PUBLISHED)
        assert signed_page(ReportFile(Bundle(bundle.report, bundle.evidence[:-1]))) is None

    def test_words_and_layout_have_a_version(self) -> None:
        """A page that was signed is made again only by the version that made it: whoever changes a
        word or the layout raises RENDERER and writes the new digest here."""
        shown = page_of(PUBLISHED).shown
        words = re.sub(rb"[0-9a-f]{12,64}|[0-9a-f]{4}( [0-9a-f]{4}){15}|[0-9][0-9,.]*", b"#", shown)
        assert (renderer.RENDERER, digest_of_bytes(words)) == (3, WORDS)


def page_claims_of(file: ReportFile) -> tuple[str, str]:
    claims = {c.name: c.outcome for c in audit(file.bundle, FED.membership, page=file.page)}
    return claims[AS_SIGNED], claims[FOLLOWS]


def replace_renderer(found: ReportFile, version: int) -> ReportFile:
    """The same page and report, as if another version had made them."""
    return replace(found, bundle=bundle_of(other_version(version), PUBLISHED))


def other_version(version: int) -> Verified[RoundReport]:
    report = report_with_page(PUBLISHED, minutes(126))
    assert report.page is not None
    page = report.page.model_copy(update={"renderer": version})
    return seal(report.model_copy(update={"page": page}), key("coordinator"))


WORDS = "998b35f3eeca2620dab01e690b78aa987681bc121a7e995e5f9bd61bb3b44047"
