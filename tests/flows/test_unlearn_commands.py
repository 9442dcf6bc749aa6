"""`consortia unlearn verify`: what an institution types, with its own membership file."""

import subprocess
import sys
from pathlib import Path

from tests.aggregator.unlearning.test_certificate import made, signed
from tests.infra.record_samples import FIRST


def verified(folder: Path, page: bytes) -> subprocess.CompletedProcess[str]:
    (folder / "membership.json").write_bytes(FIRST.envelope)
    (folder / "certificate.html").write_bytes(page)
    command = [sys.executable, "-m", "flows.cli", "unlearn", "verify", "certificate.html"]
    command += ["--trust", "membership.json"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_certificate_as_it_was_written_verifies(tmp_path: Path) -> None:
    done = verified(tmp_path, signed(made()))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no claim fails" in done.stdout


def test_one_with_a_changed_word_does_not(tmp_path: Path) -> None:
    done = verified(tmp_path, signed(made()).replace(b"taken out again", b"never in there"))
    assert done.returncode == 1
    assert "1 of 7 claims fail" in done.stdout


def test_another_file_is_one_message(tmp_path: Path) -> None:
    done = verified(tmp_path, b"<p>no certificate</p>")
    assert done.returncode == 1
    assert "expected a page with exactly one embedded bundle" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
