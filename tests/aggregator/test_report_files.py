"""Bundles are strict, files deterministic, and the page escapes whatever a silo wrote."""

import base64
import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from aggregator.attempt import Attempt, SiloRecords
from aggregator.audit.report_audit import audit, holds
from aggregator.report.archive import export_archive
from aggregator.report.bundle import Bundle, bundle_of, pack_bundle, unpack_bundle
from aggregator.report.files import read_bundle, read_report_file, write_report_files
from aggregator.report.report_file import ReportFile, signed_page
from data_contracts.errors import UntrustedInputError
from tests.aggregator.federation_samples import federation, key, page_file

FED = federation(purpose='Coding <script>alert(1)</script> & "letters"')


def evidence() -> Attempt:
    refused = SiloRecords("hospital-c", refusal=FED.refusal("hospital-c"))
    return FED.finished([FED.silo("bank-a"), FED.silo("hospital-b"), refused])


EVIDENCE = evidence()
REPORT = FED.report(EVIDENCE)
BUNDLE = bundle_of(REPORT, EVIDENCE)


def test_a_bundle_round_trips_and_its_bytes_are_stable() -> None:
    packed = pack_bundle(BUNDLE)
    assert unpack_bundle(packed) == BUNDLE
    assert pack_bundle(unpack_bundle(packed)) == packed
    assert len(BUNDLE.evidence) == len(REPORT.record.evidence)


def content(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "format": "consortia-report-2",
        "report": "e30=",
        "evidence": [],
        "memberships": [],
    }
    return json.dumps(fields | changes).encode()


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"not json", "envelope.json"),
        (b"[" * 50 + b"]" * 50, "envelope.depth"),
        (b"[]", "bundle.fields"),
        (content(more=1), "bundle.fields"),
        (content(format="consortia-report-1"), "bundle.format"),
        (content(evidence="e30="), "bundle.evidence"),
        (content(memberships="e30="), "bundle.evidence"),
        (content(memberships=["e30="] * 10_001), "bundle.evidence"),
        (content(evidence=["e30="] * 8001), "bundle.evidence"),
        (content(evidence=[3]), "bundle.base64"),
        (content(report="e30"), "bundle.base64"),
        (content(report="e30=\n"), "bundle.base64"),
        (content(report=base64.b64encode(b"x" * 20_000_000).decode()), "bundle.size"),
        (b'{"format":"a","format":"b","report":"","evidence":[]}', "envelope.json"),
    ],
)
def test_malformed_bundles_are_refused_with_a_rule(data: bytes, rule: str) -> None:
    with pytest.raises(UntrustedInputError) as caught:
        unpack_bundle(data)
    assert caught.value.rule == rule


def test_every_written_file_verifies_and_is_written_the_same_again(tmp_path: Path) -> None:
    files = write_report_files(REPORT, EVIDENCE, tmp_path)
    first = [path.read_bytes() for path in (files.bundle, page_file(files), files.archive)]
    assert write_report_files(REPORT, EVIDENCE, tmp_path) == files
    assert [path.read_bytes() for path in (files.bundle, page_file(files), files.archive)] == first
    for path in (files.bundle, page_file(files), files.archive):
        found = read_report_file(path)
        assert found.bundle == BUNDLE
        assert (found.page is None) == (path == files.bundle)
        claims = audit(found.bundle, FED.membership, page=found.page)
        assert holds(claims)
        outcomes = {c.name: c.outcome for c in claims}
        assert outcomes["page follows from evidence"] == "pass"
        assert outcomes["page as signed"] == ("pass" if found.page else "not checked")


def changed_archive(source: Path, into: Path, **changes: bytes) -> Path:
    """The archive with other contents for some names, and new files for others."""
    with zipfile.ZipFile(source) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(into, "w") as archive:
        for name, data in (files | changes).items():
            archive.writestr(name, data)
    return into


def test_an_archive_whose_files_say_something_else_is_refused(tmp_path: Path) -> None:
    source = write_report_files(REPORT, EVIDENCE, tmp_path).archive
    with zipfile.ZipFile(source) as archive:
        evidence = next(name for name in archive.namelist() if name.startswith("evidence/"))
    for name in ("report.json", "report.envelope.json", evidence, "evidence/more.json"):
        lie = changed_archive(source, tmp_path / "lie.zip", **{name: b"{}"})
        with pytest.raises(UntrustedInputError, match="files that say what the bundle says"):
            read_report_file(lie)
    same = changed_archive(source, tmp_path / "same.zip", **{"README.txt": b"of another release"})
    assert read_report_file(same).bundle == BUNDLE


def test_an_archive_with_two_files_of_a_name_is_refused(tmp_path: Path) -> None:
    source = write_report_files(REPORT, EVIDENCE, tmp_path).archive
    with (
        zipfile.ZipFile(source, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("report.html", b"<html></html>")
    with pytest.raises(UntrustedInputError, match="every file once"):
        read_report_file(source)


@pytest.mark.parametrize(("offset", "value"), [(6, 1), (8, 99)])
def test_encrypted_and_unknown_members_are_one_message(
    tmp_path: Path, offset: int, value: int
) -> None:
    """Flag and method of every member, in its local and its central header."""
    data = bytearray(write_report_files(REPORT, EVIDENCE, tmp_path).archive.read_bytes())
    for signature, extra in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset + extra] = value
            at = data.find(signature, at + 1)
    (tmp_path / "odd.zip").write_bytes(data)
    with pytest.raises(UntrustedInputError) as caught:
        read_report_file(tmp_path / "odd.zip")
    assert caught.value.rule == "bundle.archive"


def test_the_archive_spells_out_every_record(tmp_path: Path) -> None:
    files = write_report_files(REPORT, EVIDENCE, tmp_path)
    with zipfile.ZipFile(files.archive) as archive:
        names = archive.namelist()
        for ref in REPORT.record.evidence:
            name = f"evidence/{ref.silo or 'coordinator'}/{ref.kind}-{ref.digest}.json"
            assert archive.read(name) in BUNDLE.evidence
        assert json.loads(archive.read("report.json"))["outcome"] == "published"
        assert archive.read("report.envelope.json") == REPORT.envelope
        assert b"openssl pkeyutl -verify" in archive.read("README.txt")
    assert len(names) == len(REPORT.record.evidence) + 5


@pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "openssl", "jq", "xxd"))),
    reason="the commands of README.txt need bash, openssl, jq and xxd",
)
def test_the_readme_s_commands_verify_a_signature(tmp_path: Path) -> None:
    files = write_report_files(REPORT, EVIDENCE, tmp_path)
    with zipfile.ZipFile(files.archive) as archive:
        readme = archive.read("README.txt").decode()
    commands = re.findall(r"^    (\S.*)$", readme, re.MULTILINE)
    script = "\n".join(line for line in commands if not line.startswith("consortia"))
    script = script.replace("E.json", "record.json")
    script = script.replace("KEY", key("coordinator").public_key_hex)
    theirs = EVIDENCE.of("bank-a").submission
    assert theirs is not None
    for envelope, code in ((REPORT.envelope, 0), (theirs.envelope, 1)):
        (tmp_path / "record.json").write_bytes(envelope)
        done = subprocess.run(
            ["bash", "-ec", script],  # noqa: S607
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        assert done.returncode == code, done.stderr


def test_broken_archives_and_pages_are_refused(tmp_path: Path) -> None:
    page = signed_page(ReportFile(BUNDLE))
    assert page is not None
    script = re.search(rb"<script .*?</script>", page, re.DOTALL)
    assert script is not None
    for name, data, rule in (
        ("a.zip", b"PK broken", "bundle.archive"),
        ("a.html", b"<html></html>", "bundle.page"),
        ("b.html", page + script[0], "bundle.page"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UntrustedInputError) as caught:
            read_bundle(tmp_path / name)
        assert caught.value.rule == rule


def test_only_listed_records_are_exported(tmp_path: Path) -> None:
    stranger = FED.abort().envelope
    with pytest.raises(UntrustedInputError, match="records that the report lists"):
        export_archive(ReportFile(Bundle(BUNDLE.report, (stranger,))), tmp_path / "a.zip")
    with pytest.raises(UntrustedInputError):
        export_archive(ReportFile(Bundle(b"{}", ())), tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_retry_does_not_overwrite_the_files_of_the_first_attempt(tmp_path: Path) -> None:
    retry = federation(attempt=2)
    evidence = retry.attempt([], abort=retry.abort())
    files = write_report_files(retry.report(evidence), evidence, tmp_path)
    assert files.bundle.name == "run-one-round-0002-attempt-02.json"
    assert write_report_files(REPORT, EVIDENCE, tmp_path).bundle.name == "run-one-round-0002.json"


def test_a_second_run_does_not_overwrite_the_files_of_the_first(tmp_path: Path) -> None:
    first = write_report_files(REPORT, EVIDENCE, tmp_path)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    second = federation(run="run-two")
    evidence = second.attempt([], abort=second.abort())
    files = write_report_files(second.report(evidence), evidence, tmp_path)
    assert files.bundle.name == "run-two-round-0002.json"
    assert {path: path.read_bytes() for path in kept} == kept
    assert (
        f"consortia report verify {page_file(first).name}".encode() in page_file(first).read_bytes()
    )
    assert (
        f"consortia report verify {page_file(files).name}".encode() in page_file(files).read_bytes()
    )
