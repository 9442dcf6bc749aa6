"""`consortia report`: what an officer types, with the institution's own membership file."""

import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.attempt import SiloRecords
from aggregator.report.files import ReportFiles, write_report_files
from infra.disk.durable_files import write_durably
from tests.aggregator.federation_samples import federation, page_file

FED = federation()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    folder = tmp_path_factory.mktemp("an officer's folder")
    refused = SiloRecords("hospital-c", refusal=FED.refusal("hospital-c"))
    attempt = FED.finished([FED.silo("bank-a"), FED.silo("hospital-b"), refused])
    write_durably(folder / "membership.json", FED.membership.envelope)
    return write_report_files(FED.report(attempt), attempt, folder)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", "report", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def said(done: subprocess.CompletedProcess[str], column: int) -> str:
    """The text of one column of the table, on one line."""
    rows = [line.split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    return " ".join(" ".join(row[column].split()) for row in rows)


def test_the_command_on_the_page_verifies_the_page(files: ReportFiles) -> None:
    page = page_file(files).read_text(encoding="utf-8")
    command = page.split("<pre>")[1].split("</pre>")[0].split()
    assert command[:2] == ["consortia", "report"]
    done = run(page_file(files).parent, *command[2:])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no claim fails" in done.stdout


def test_a_page_with_a_changed_word_is_refused(files: ReportFiles, tmp_path: Path) -> None:
    changed = tmp_path / page_file(files).name
    page = page_file(files).read_bytes()
    changed.write_bytes(page.replace(b"1 refused", b"0 refused", 1))
    trust = str(page_file(files).parent / "membership.json")
    done = run(tmp_path, "verify", changed.name, "--trust", trust)
    assert done.returncode == 1
    assert "1 of" in done.stdout
    assert "its words are not those that the coordinator signed" in said(done, 3)


@pytest.mark.long
def test_an_archive_keeps_the_page_as_it_was_signed(files: ReportFiles, tmp_path: Path) -> None:
    for source in (page_file(files), files.bundle):
        into = tmp_path / f"{source.suffix[1:]}.zip"
        assert run(tmp_path, "export", str(source), "--into", str(into)).returncode == 0
        trust = str(page_file(files).parent / "membership.json")
        done = run(tmp_path, "verify", str(into), "--trust", trust)
        assert done.returncode == 0, done.stdout
        assert "every byte that is shown is as the coordinator signed it" in said(done, 3)
