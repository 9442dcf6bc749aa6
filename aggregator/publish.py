"""The published adapter in the layout that plain PEFT loads: no Consortia needed to use it.

The configuration is built from the plan's layout, never from a file that a peer wrote. The
directory is absent or complete: it is written aside, synced, and renamed into place.
"""

import json
import os
import shutil
from pathlib import Path

from data_contracts.records.round_plan import AdapterLayout
from infra.durable_files import sync_directory, write_durably

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
READABLE = 0o644


def write_peft_layout(
    adapter_file: Path, layout: AdapterLayout, base_model_name: str, into: Path
) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` to the directory `into`.

    `adapter_file` is a verified safetensors file of `layout`. An earlier directory is replaced as a
    whole; a crash in the middle leaves the old one, none, or the new one, never a mixture.
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    aside = into.with_name(f".{into.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    config = json.dumps(peft_config(layout, base_model_name), indent=2) + "\n"
    write_durably(aside / CONFIG_NAME, config.encode(), READABLE)
    shutil.copyfile(adapter_file, aside / WEIGHTS_NAME)
    with (aside / WEIGHTS_NAME).open("rb+") as file:
        os.fsync(file.fileno())
    sync_directory(aside)
    _replace_directory(aside, into)


def peft_config(layout: AdapterLayout, base_model_name: str) -> dict[str, object]:
    """PEFT's LoraConfig as JSON values; every field that matters is explicit."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model_name,
        "inference_mode": True,
        "r": layout.rank,
        "lora_alpha": layout.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": layout.use_rslora,
        "use_dora": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "target_modules": sorted(target.module for target in layout.targets),
    }


def _replace_directory(new: Path, into: Path) -> None:
    old = into.with_name(f".{into.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    if into.exists():
        into.rename(old)
    new.rename(into)
    sync_directory(into.parent)
    shutil.rmtree(old, ignore_errors=True)
