"""Readiness of what a round is run with: base models, registries, data, disk, memory, device.

What a round needs of disk and memory is an estimate from below, and says so; too little disk is
wrong, too little memory a warning, because the kernel and ZeRO may still make do.
"""

import json
import shutil
import struct
import subprocess
import sys
from math import prod
from pathlib import Path

import psutil

from data_contracts.dataset.contract import DataContract
from data_contracts.errors import ConsortiaError
from data_contracts.licences.model_licence import judge_model
from data_contracts.protocol.records.licence_terms import Use
from infra.disk.file_digests import FileDigests
from infra.disk.model_files import model_digest, model_files
from silo_agent.gate.registries import ReferencesError, SiloReferences
from silo_agent.policy.policy_file import AllowedModel
from silo_agent.readiness.checklist import Item, of_fault, there, tried, wrong
from silo_agent.readiness.facts import Facts

DEVICE_SECONDS = 120
KEPT_COPIES = 9
"""An adapter with its optimizer state in the checkpoint, trained, and on its way out; and what
compression left unsent of three rounds, with the factors that it belongs to."""

LEAST_BYTES = 50_000_000
"""Logs, findings and records of a round, however small the data."""

RANK_BYTES = 500_000_000
"""What a rank needs besides the model: PyTorch, DeepSpeed and activations of a small batch."""

BYTES_PER_PARAMETER = {"cpu": 4, "cuda": 2}
MODEL_DIGESTS = "model-digests.json"

_COUNT_GPUS = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"


def machine(facts: Facts) -> list[Item]:
    """Everything but the papers; the content of the data is for the data check."""
    return [
        *_models(facts),
        *_registries(facts),
        *_data(facts),
        _disk(facts),
        *_memory(facts),
        _device(facts),
    ]


def _models(facts: Facts) -> list[Item]:
    policy, contract = facts.policy.policy, facts.contract
    if policy is None:
        return [Item("base model", "not checked", "it needs a policy that can be read")]
    uses: tuple[Use, ...] = (
        contract.terms.uses if isinstance(contract, DataContract) else ("research",)
    )
    return [_model(facts, model, uses) for model in policy.models]


def _model(facts: Facts, model: AllowedModel, uses: tuple[Use, ...]) -> Item:
    name, path = f"base model {model.name}", facts.config.path(model.path)
    if not path.is_dir():
        return Item(
            name, "missing", str(path), "put the model's files there, or correct the policy"
        )
    cache = facts.config.home / MODEL_DIGESTS
    found = tried(lambda: model_digest(path, cache))
    if isinstance(found, ConsortiaError):
        return of_fault(name, found)
    if found != model.digest:
        detail = f"{path} has the digest {found}; the policy names {model.digest}"
        return wrong(name, detail, "restore the model's files, or correct the policy's digest")
    judged = [judge_model(model.licence, use, model.licence_acceptance) for use in uses]
    if not any(finding.allowed for finding in judged):
        detail = "; ".join(finding.reason for finding in judged)
        return wrong(name, detail, "correct licence or licence_acceptance in the policy")
    return there(name, f"{path}, {model.licence}, digest {found}")


def _registries(facts: Facts) -> list[Item]:
    contract, config = facts.contract, facts.config
    if not isinstance(contract, DataContract):
        return []
    named = [registry.name for registry in contract.terms.copyright.registries]
    images = contract.terms.images.registry
    if not named and images is None:
        return []
    folder = config.path(config.data.registries)
    digests = FileDigests(None)
    try:
        SiloReferences(config.federation, contract, folder, digests).load(facts.now)
    except ReferencesError as error:
        return [wrong("registries", str(error), f"put what the rights holder gave into {folder}")]
    return [there("registries", ", ".join([*named, *([images] if images else [])]))]


def _data(facts: Facts) -> list[Item]:
    contract, config = facts.contract, facts.config
    if not isinstance(contract, DataContract):
        return [Item("data", "not checked", "it needs a contract that can be read")]
    from data_contracts.dataset.sources.places import DataRoot
    from data_contracts.dataset.sources.reading import source_files

    root = config.path(config.data.root)
    below = DataRoot(root, config.data.allow_hard_links)
    files = tried(lambda: source_files(contract.source, below))
    if isinstance(files, ConsortiaError):
        fault = f"{contract.source.path} in {root}: {files.found}"
        return [Item("data", "missing", fault, f"put the data that the contract names into {root}")]
    if contract.source.format == "sql":
        return [there("data", f"table {contract.source.table}")]
    size = sum(file.stat().st_size for file in files)
    return [there("data", f"{contract.source.path} in {root}, {_megabytes(size)}")]


def _disk(facts: Facts) -> Item:
    free = shutil.disk_usage(facts.config.home).free
    needed = _bytes_on_disk(facts)
    detail = (
        f"{_megabytes(free)} free in {facts.config.home}; a round needs about {_megabytes(needed)}"
    )
    if free < needed:
        return wrong("disk", detail, "free disk space, or move the home directory to another disk")
    return there("disk", detail)


def _bytes_on_disk(facts: Facts) -> int:
    """Splits of the data, and the largest adapter that may be released, with its state."""
    policy, contract = facts.policy.policy, facts.contract
    adapter = 0
    if policy is not None:
        sizes = [_parameters(facts.config.path(m.path)) for m in policy.models]
        adapter = min(policy.limits.max_adapter_bytes, 4 * max(sizes))
    data = 0
    if isinstance(contract, DataContract):
        root = facts.config.path(facts.config.data.root)
        data = sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) if root.is_dir() else 0
    return LEAST_BYTES + KEPT_COPIES * adapter + 2 * data


def _memory(facts: Facts) -> list[Item]:
    policy, training = facts.policy.policy, facts.config.training
    if policy is None:
        return []
    largest = max(_parameters(facts.config.path(model.path)) for model in policy.models)
    weights = largest * BYTES_PER_PARAMETER[training.device]
    needed = training.ranks * (RANK_BYTES + (weights if training.device == "cpu" else 0))
    available = psutil.virtual_memory().available
    detail = f"{_megabytes(available)} available; {training.ranks} ranks need {_megabytes(needed)}"
    if available < needed:
        return [Item("memory", "warning", detail, "end other programs, or lower ranks")]
    return [there("memory", detail)]


def _device(facts: Facts) -> Item:
    training, cores = facts.config.training, len(psutil.Process().cpu_affinity())
    if training.device == "cuda":
        return _gpus(training.ranks)
    detail = f"cpu, {training.ranks} ranks of {training.threads_per_rank} threads on {cores} cores"
    if training.ranks * training.threads_per_rank > cores:
        return Item("device", "warning", detail, "lower ranks in silo-agent.toml: more only wait")
    return there("device", detail)


def _gpus(ranks: int) -> Item:
    """Asked in a process of its own: torch is never loaded here."""
    try:
        command = [sys.executable, "-c", _COUNT_GPUS]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DEVICE_SECONDS, check=True
        )
        found = int(done.stdout.split()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError):
        found = 0
    detail = f"cuda, {ranks} ranks on {found} GPUs that PyTorch sees"
    if found < ranks:
        return wrong(
            "device", detail, "set device and ranks in silo-agent.toml, or mend the driver"
        )
    return there("device", detail)


def _parameters(model: Path) -> int:
    """How many parameters the model's files hold, from their headers; 0 where there is none."""
    files = tried(lambda: model_files(model))
    if isinstance(files, ConsortiaError):
        return 0
    return sum(_in_header(path) for path in files.values() if path.suffix == ".safetensors")


def _in_header(path: Path) -> int:
    """Elements in a safetensors file: 8 bytes of length, then JSON by tensor."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, path.stat().st_size)))
        return sum(
            prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"
        )
    except (OSError, ValueError, struct.error, LookupError, TypeError, AttributeError):
        return 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e7 else f"{size / 1e6:,.0f} MB"
