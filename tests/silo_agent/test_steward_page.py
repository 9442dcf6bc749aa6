"""The steward's page and terminal: everything that a silo may know of its own data, and no text."""

import io
import re
import stat
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from data_contracts.dataset.contract.terms import EGRESS
from silo_agent.gate.check_display import print_view, show_page
from silo_agent.gate.steward_page import expiry_words, open_in_browser, render_page, write_page
from silo_agent.gate.steward_view import StewardView
from tests.data_contracts.dataset.contract_samples import (
    CONTRACT,
    replaced,
    sample_contract,
    sample_record,
    sample_records,
)
from tests.silo_agent.gate_samples import SampleSilo
from tests.silo_agent.steward_samples import rule_of, view_of

STRICT = (
    "maxExactPerMille: 100, maxNearPerMille: 1000, maxLeakingPerMille: 1000",
    "maxExactPerMille: 0, maxNearPerMille: 0, maxLeakingPerMille: 0",
)
NAMED = ("version: 1.0.0\n", "version: 1.0.0\nname: Questions of <the> ward\n")


def broken_records() -> list[dict[str, Any] | bytes]:
    """One of each: a refused licence, an id twice, a text of another subject twice, no record."""
    return [
        *sample_records(),
        sample_record(40, licence="GPL-3.0-only"),
        sample_record(41, id="record-7"),
        sample_record(3, id="again", subject="another"),
        b"{",
    ]


@pytest.fixture
def silo(tmp_path: Path) -> SampleSilo:
    silo = SampleSilo(tmp_path, replaced(STRICT, NAMED))
    silo.write_records(broken_records())
    return silo


class Seen(HTMLParser):
    """The tags, attributes and visible words of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._words: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self._words.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self._words).split())


def terminal(view: StewardView) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    print_view(view, console)
    return console.export_text()


def test_counts_are_exact_and_rows_named_for_every_rule_that_fails(silo: SampleSilo) -> None:
    view = view_of(silo)
    shown = {rule.rule: rule for rule in view.in_state("fails")}
    assert {"records.readable", "licence.allowed", "duplicates.exact"} <= set(shown)
    assert shown["licence.allowed"].found == "1 of 43"
    (row,) = shown["licence.allowed"].rows
    assert (row.row, row.record) == (41, "record-40")
    (row,) = shown["duplicates.exact"].rows
    assert (row.row, row.record, row.other, row.other_record) == (43, "again", 4, "record-3")
    (row,) = shown["records.readable"].rows
    assert (row.row, row.record, row.reason) == (44, "", "not JSON")
    (row,) = view.repeated_id_rows
    assert (row.row, row.record, row.other) == (42, "record-7", 8)
    assert view.records == 44
    assert view.left_out == 44 - view.train_records - view.heldout_records == 4


def test_page_and_terminal_say_the_same_and_withhold_nothing(silo: SampleSilo) -> None:
    view = view_of(silo)
    page, lines = Seen(render_page(view)).words, terminal(view)
    for shown in (page, lines):
        assert "withheld" not in shown.lower()
        assert "expect_" not in shown
        assert "Great Expectations" not in shown
        for rule in view.in_state("fails"):
            assert rule.rule in shown
            assert rule.sentence in shown
            assert f"{rule.found}" in shown
        for name in ("record-40", "again", "record-3", "record-7", "not JSON"):
            assert name in shown
    assert "row 43 (again): the same text as the earlier row 4 (record-3)" in lines
    assert re.search(r"44 offered: \d+ for training, \d+ held out, 4 left out", lines)


def test_the_page_names_institution_contract_purpose_and_times(silo: SampleSilo) -> None:
    words = Seen(render_page(view_of(silo))).words
    for said in (
        "institution silo-one",
        "federation fed-one",
        "Questions of <the> ward",
        "sample , version 1.0.0",
        "Question answering; Summaries",
        "2030-01-01 00:00 UTC, in 1,096 days",
        "2027-01-01 00:00:00 UTC",
        "line 7 of sets/records.jsonl",
        "44 records offered",
    ):
        assert said in words


def test_the_page_loads_and_runs_nothing(silo: SampleSilo) -> None:
    page = render_page(view_of(silo))
    seen = Seen(page)
    policy = [attrs for tag, attrs in seen.tags if tag == "meta" and "http-equiv" in attrs]
    assert policy[0]["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not {tag for tag, _ in seen.tags} & {"script", "link", "img", "iframe", "form", "a"}
    assert not any({"src", "href", "style", "onclick"} & set(attrs) for _, attrs in seen.tags)
    assert b"http:" not in page
    assert b"https:" not in page
    assert page.count(b"<style>") == 1


def test_the_same_check_gives_the_same_bytes_but_for_the_time(silo: SampleSilo) -> None:
    first, again = render_page(view_of(silo)), render_page(view_of(silo))
    assert first == again
    silo.clock.sleep(3601)
    later = render_page(view_of(silo))
    assert later != first
    assert later.replace(b"01:00:01", b"00:00:00").replace(b"1,095 days", b"1,096 days") == first


def test_what_the_data_say_is_shown_as_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    silo = SampleSilo(tmp_path)
    silo.write_records([*sample_records(), sample_record(40, id=hostile, licence=hostile)])
    page = render_page(view_of(silo))
    assert hostile.encode() not in page
    assert hostile in Seen(page).words
    assert "[bold]" in terminal(view_of(_with_id(silo, "[bold]x[/bold]")))


def _with_id(silo: SampleSilo, name: str) -> SampleSilo:
    silo.write_records([*sample_records(), sample_record(40, id=name, licence="GPL-3.0-only")])
    return silo


def test_no_text_of_a_record_is_on_the_page(tmp_path: Path) -> None:
    canary = "canary7f3a"
    silo = SampleSilo(tmp_path, replaced(STRICT))
    changes = {"prompt": f"{canary} prompt", "answer": f"{canary} answer jane@clinic.example.org"}
    silo.write_records(
        [sample_record(n, subject=canary, source=canary, **changes) for n in range(40)]
    )
    view = view_of(silo)
    assert {"personal_data.limit", "duplicates.exact"} <= {r.rule for r in view.in_state("fails")}
    for shown in (render_page(view).decode(), terminal(view)):
        assert canary not in shown
        assert "clinic.example" not in shown
        assert "record-39" in shown or "record-19" in shown or "record-4" in shown


@pytest.mark.parametrize("broken", [1, 9, 10, 25, 39, 40])
def test_beside_the_exact_count_stands_what_others_hear(tmp_path: Path, broken: int) -> None:
    silo = SampleSilo(tmp_path)
    records = [sample_record(n, licence="GPL-3.0-only" if n < broken else "MIT") for n in range(40)]
    silo.write_records([*records])
    rule = rule_of(view_of(silo), "licence.allowed")
    assert rule.found == f"{broken} of 40"
    assert len(rule.rows) + rule.more == broken
    is_small = 0 < broken < 10 or 0 < 40 - broken < 10
    expected = "of 40; how many is held back" if is_small else f"{broken} of 40"
    assert rule.told in (f"fails, {expected}", f"fails {expected}")


def test_what_the_contract_keeps_in_is_not_said_to_leave(tmp_path: Path) -> None:
    kept = [name for name in EGRESS if name not in ("rule-counts", "licence-counts")]
    term = f"  - property: fl.egress\n    value: {{allow: [{', '.join(kept)}]}}\n"
    silo = SampleSilo(tmp_path, CONTRACT + term)
    silo.write_records([sample_record(n, licence="GPL-3.0-only") for n in range(40)])
    view = view_of(silo)
    assert rule_of(view, "licence.allowed").told == "fails, and no number"
    assert rule_of(view, "licence.allowed").found == "40 of 40"
    assert [licence.records for licence in view.licences] == [None]


def test_a_check_that_looked_at_no_record_says_why(tmp_path: Path) -> None:
    silo = SampleSilo(tmp_path)
    view = view_of(silo)
    words = Seen(render_page(view)).words
    assert "No record was looked at." in words
    assert "no such file or folder" in words
    assert "no such file or folder" in terminal(view)
    assert [rule.rule for rule in view.in_state("fails")] == ["data.available"]
    silo.write_records([*sample_records()])
    silo.clock.sleep((sample_contract().terms.expires - silo.clock.now()).total_seconds())
    view = view_of(silo)
    assert "expired on 2030-01-01" in Seen(render_page(view)).words
    assert [rule.rule for rule in view.in_state("fails")] == ["contract.current"]


def test_good_data_have_a_page_without_faults(tmp_path: Path) -> None:
    silo = SampleSilo(tmp_path)
    silo.write_records([*sample_records()])
    view = view_of(silo)
    words = Seen(render_page(view)).words
    assert "The data keep their contract." in words
    assert "Worth a look" not in words
    assert view.in_state("fails", "warns") == []
    assert rule_of(view, "records.minimum").found == "40 different texts"


def test_a_warning_is_told_and_refuses_nothing(tmp_path: Path) -> None:
    silo = SampleSilo(tmp_path, replaced(("severity: critical", "severity: warning")))
    silo.write_records([*sample_records(), sample_record(40, answer="x" * 501)])
    view = view_of(silo)
    assert view.passed
    assert [rule.rule for rule in view.in_state("warns")] == ["contract.answer-length"]
    assert "fails, only reported" in Seen(render_page(view)).words
    assert "row 41 (record-40): answer of 501 characters" in terminal(view)


def test_an_own_rule_called_as_the_precondition_keeps_its_own_numbers(tmp_path: Path) -> None:
    silo = SampleSilo(tmp_path, replaced(("id: answer-length", "id: current")))
    silo.write_records([*sample_records(), sample_record(40, answer="x" * 501)])
    view = view_of(silo)
    assert rule_of(view, "contract.current", "expired").state == "holds"
    own = rule_of(view, "contract.current", "Lengths")
    assert (own.state, own.found) == ("fails", "otherwise in 1 of 41")


def test_the_page_is_the_owner_s_alone(silo: SampleSilo) -> None:
    view = view_of(silo)
    path = write_page(view, silo.home)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert write_page(view, silo.home) == path
    assert path.read_bytes() == render_page(view)


@pytest.mark.parametrize("browser", [None, "/nowhere/browser"])
def test_the_path_is_told_where_no_browser_can_be_started(
    silo: SampleSilo, browser: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    if browser:
        monkeypatch.setenv("BROWSER", browser)
    monkeypatch.setenv("PATH", "/nowhere")
    view = view_of(silo)
    assert open_in_browser(silo.home / "x.html") is False
    console = Console(width=30, record=True, file=io.StringIO())
    show_page(view, silo.home, console)
    assert f"page          {silo.home / 'steward.html'}\n" in console.export_text()


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (timedelta(days=30, hours=5), "in 30 days"),
        (timedelta(days=1), "in 1 day"),
        (timedelta(hours=1), "in less than a day"),
        (timedelta(0), "expired on 2027-05-01 12:00 UTC"),
        (timedelta(days=-3), "expired on"),
    ],
)
def test_the_expiry_says_how_far_away_it_is(left: timedelta, words: str) -> None:
    expires = datetime(2027, 5, 1, 12, tzinfo=UTC)
    said = expiry_words(expires, expires - left)
    assert said.endswith(words) or said.startswith(words)
