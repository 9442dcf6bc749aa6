"""Readiness of what a round is run with: registries, data, disk, memory, device.

What a round needs of the disk is an estimate from below, and too little is wrong; of memory see
`readiness.memory`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import psutil

from data_contracts.dataset.contract import DataContract
from data_contracts.errors import ConsortiaError
from infra.base_model.folder_check import elements
from infra.base_model.weight_files import read_weights
from infra.disk.file_digests import FileDigests
from silo_agent.gate.registries import ReferencesError, SiloReferences
from silo_agent.loop import running_agent
from silo_agent.metrics.chosen import require_metrics
from silo_agent.readiness.base_model import base_models
from silo_agent.readiness.checklist import Item, of_fault, there, tried, wrong
from silo_agent.readiness.facts import Facts
from silo_agent.readiness.memory import memory
from silo_agent.readiness.nodes import nodes
from silo_agent.readiness.personal import personal
from silo_agent.readiness.precision import precision
from silo_agent.readiness.steps import steps
from silo_agent.training.offload import require_offload

DEVICE_SECONDS = 120
KEPT_COPIES = 9
"""An adapter with its optimizer state in the checkpoint, trained, and on its way out; and what
compression left unsent of three rounds, with the factors that it belongs to."""

LEAST_BYTES = 50_000_000
"""Logs, findings and records of a round, however small the data."""


_COUNT_GPUS = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"


def machine(facts: Facts) -> list[Item]:
    """Everything but the papers; the content of the data is for the data check."""
    return [
        *base_models(facts),
        *_registries(facts),
        *_data(facts),
        _disk(facts),
        *memory(facts),
        *steps(facts.plan, facts.config.training),
        precision(facts),
        *personal(facts),
        *([_device(facts)] if facts.config.training.nodes is None else nodes(facts)),
        *_metrics(facts),
    ]


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
        # Pictures stay where they are; only what is said of them is written down again.
        counted = root.rglob("metadata.*" if contract.source.format == "image-text" else "*")
        data = sum(f.stat().st_size for f in counted if f.is_file()) if root.is_dir() else 0
    return LEAST_BYTES + KEPT_COPIES * adapter + 2 * data


def _parameters(model: Path) -> int:
    try:
        return elements(read_weights(model))
    except (ConsortiaError, OSError):
        return 0


def _device(facts: Facts) -> Item:
    training, cores = facts.config.training, len(psutil.Process().cpu_affinity())
    lacking = tried(lambda: require_offload(training.offload))
    if isinstance(lacking, ConsortiaError):
        return of_fault("device", lacking)
    if training.device == "cuda":
        return _gpus(training.ranks)
    detail = f"cpu, {training.ranks} ranks of {training.threads_per_rank} threads on {cores} cores"
    if training.ranks * training.threads_per_rank > cores:
        return Item("device", "warning", detail, "lower ranks in silo-agent.toml: more only wait")
    return there("device", detail)


def _metrics(facts: Facts) -> list[Item]:
    """Whether what `[metrics]` asks for can be had; an agent that runs has its own port."""
    section, runs = facts.config.metrics, running_agent(facts.config.home) is not None
    chosen = [name for name in ("prometheus_port", "mlflow", "tensorboard") if vars(section)[name]]
    if not chosen:
        return []
    fault = tried(lambda: require_metrics(section, with_port=not runs))
    if isinstance(fault, ConsortiaError):
        return [of_fault("metrics", fault)]
    return [there("metrics", ", ".join(f"{name} = {vars(section)[name]}" for name in chosen))]


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


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e7 else f"{size / 1e6:,.0f} MB"
