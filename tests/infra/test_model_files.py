"""The model digest: what it covers and refuses, and a cache that notices changes."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rfc8785

from data_contracts.errors import SiloOperatorError
from infra.disk.model_files import model_digest

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b'{"a": 1}',
    "chat_template.jinja": b"{{ messages }}",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    for name, data in FILES.items():
        (directory / name).write_bytes(data)
    return directory


def test_digest_is_that_of_the_canonical_file_list(model: Path) -> None:
    listed: dict[str, dict[str, str | int]] = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in FILES.items()
    }
    assert model_digest(model) == hashlib.sha256(rfc8785.dumps(listed)).hexdigest()


def test_notes_and_hidden_folders_do_not_count(model: Path) -> None:
    digest = model_digest(model)
    (model / "README.md").write_text("about")
    (model / ".cache").mkdir()
    (model / ".cache" / "x.json").write_text("{}")
    assert model_digest(model) == digest


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_file_counts(model: Path, name: str) -> None:
    digest = model_digest(model)
    (model / name).write_bytes(FILES[name] + b" ")
    assert model_digest(model) != digest


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "weights.pt",
        "modeling_x.py",
        "sub/modeling_x.py",
        "adapter_config.json",
        "adapter_model.safetensors",
    ],
)
def test_what_could_run_code_or_add_weights_is_refused(model: Path, name: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(b"x")
    with pytest.raises(SiloOperatorError, match=rf"found {name}"):
        model_digest(model)


def test_no_model_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SiloOperatorError, match="expected a directory; found none"):
        model_digest(tmp_path / "absent")
    (model / "model.safetensors").unlink()
    with pytest.raises(SiloOperatorError, match=r"at least one \.safetensors.*found no weights"):
        model_digest(model)
    (model / "model-q4.gguf").write_bytes(b"x")
    with pytest.raises(SiloOperatorError, match=r"found model-q4\.gguf, weights in another"):
        model_digest(model)


def test_cache_spares_reading_and_notices_changes(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "state" / "digests.json"
    digest = model_digest(model, cache)
    assert model_digest(model, cache) == digest
    weights = model / "model.safetensors"
    stamp = weights.stat()
    weights.write_bytes(b"WEIGHTS")
    assert model_digest(model, cache) != digest
    os.utime(weights, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert model_digest(model, cache) == model_digest(model)


def test_a_hit_does_not_read_the_file(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "digests.json"
    model_digest(model, cache)
    entries = json.loads(cache.read_text())
    weights = str((model / "model.safetensors").resolve())
    entries[weights]["sha256"] = "0" * 64
    cache.write_text(json.dumps(entries))
    assert model_digest(model, cache) != model_digest(model)


@pytest.mark.parametrize("damage", ["", "{", "[]", "[" * 100_000, '{"x": 1}'])
def test_damaged_cache_is_made_again(model: Path, tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "digests.json"
    cache.write_text(damage)
    assert model_digest(model, cache) == model_digest(model)
    assert json.loads(cache.read_text())


def test_torch_is_not_imported() -> None:
    code = "import sys, infra.disk.model_files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
