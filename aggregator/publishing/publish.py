"""The published folder: an adapter in the layout that plain PEFT loads, with its model card.

    README.md                   the model card
    adapter_config.json         LoRA as PEFT reads it, and where the base model can be had
    adapter_model.safetensors   the adapter
    pytorch_lora_weights.safetensors  the adapter as diffusers reads it, of the family denoising
    residual/                   a second adapter of the same files, under the rule `residual`

No Consortia is needed to use it. The configuration is built from the plan, never from a file that a
peer wrote. The folder is absent or complete: it is written aside, synced, and renamed into place.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.diffusers_file import DIFFUSERS_NAME, write_for_diffusers
from data_contracts.adapters.peft_config import CONFIG_NAME, WEIGHTS_NAME, peft_config
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.model_family import CAUSAL, DENOISING, ModelFamily
from infra.disk.durable_files import sync_directory, write_durably

CARD_NAME = "README.md"
RESIDUAL_NAME = "residual"
READABLE = 0o644


@dataclass(frozen=True)
class PeftAdapter:
    """A verified safetensors file of `layout`, an adapter of `base_model` for a family's task."""

    file: Path
    layout: AdapterLayout
    base_model: BaseModelRef
    family: ModelFamily = CAUSAL


def write_published(
    into: Path, adapter: PeftAdapter, card: bytes, residual: PeftAdapter | None = None
) -> None:
    """Write the folder `into`; both adapters and the card in one step.

    An earlier folder is replaced as a whole; a crash in the middle leaves the old one, none, or
    the new one, never a mixture.
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    aside = into.with_name(f".{into.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    _write_adapter(aside, adapter)
    if residual is not None:
        _write_adapter(aside / RESIDUAL_NAME, residual)
    write_durably(aside / CARD_NAME, card, READABLE)
    _replace_directory(aside, into)


def _write_adapter(directory: Path, adapter: PeftAdapter) -> None:
    directory.mkdir()
    config = peft_config(adapter.layout, adapter.base_model, adapter.family)
    told = json.dumps(config, indent=2) + "\n"
    write_durably(directory / CONFIG_NAME, told.encode(), READABLE)
    shutil.copyfile(adapter.file, directory / WEIGHTS_NAME)
    weights = [directory / WEIGHTS_NAME]
    if adapter.family == DENOISING:
        weights.append(directory / DIFFUSERS_NAME)
        write_for_diffusers(weights[-1], open_adapter(weights[0], adapter.layout))
        weights[-1].chmod(READABLE)
    for path in weights:
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    sync_directory(directory)


def _replace_directory(new: Path, into: Path) -> None:
    old = into.with_name(f".{into.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    if into.exists():
        into.rename(old)
    new.rename(into)
    sync_directory(into.parent)
    shutil.rmtree(old, ignore_errors=True)
