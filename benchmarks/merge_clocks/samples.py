"""The adapters that are merged: the peers' own, as files that passed the product's gate."""

from pathlib import Path

from safetensors.numpy import save_file

from aggregator.merge.merge_inputs import LocalAdapter, MergeInputs
from benchmarks.peers.adapters import LAYERS, MODULES, RANK, WIDTH, silo_adapter, silo_weight
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.starting_adapter import InitialAdapter
from data_contracts.protocol.artifact import ArtifactRef, artifact_of_file
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.merge_spec import MergeRule, MergeSpec

WEIGHT_CAP = 10**9


def bench_layout() -> AdapterLayout:
    """128 modules of 4096 x 4096 at rank 16: 256 tensors, 17 million parameters."""
    targets = tuple(
        AdapterTarget(module=f"layers.{layer}.m{module}", in_features=WIDTH, out_features=WIDTH)
        for layer in range(LAYERS)
        for module in range(MODULES)
    )
    return AdapterLayout(rank=RANK, alpha=2 * RANK, seed=1, targets=targets)


def adapter_files(directory: Path, silos: int) -> list[tuple[Path, ArtifactRef]]:
    """One file a silo, written once and kept for every clock."""
    files = []
    for silo in range(silos):
        path = directory / f"{silo}.safetensors"
        if not path.exists():
            save_file(silo_adapter(silo), path)
        files.append((path, artifact_of_file(path)))
    return files


def inputs_of(
    files: list[tuple[Path, ArtifactRef]], rule: MergeRule, extra_weight: int = 0
) -> MergeInputs:
    """A merge of the files by a rule, each weighted as the peers weight it.

    `extra_weight` goes to the first silo, for a merge whose bytes storage does not have yet.
    """
    layout = bench_layout()
    return MergeInputs(
        layout=layout,
        merge=MergeSpec(rule=rule, weight_cap_tokens=WEIGHT_CAP),
        round_number=1,
        locals=tuple(
            LocalAdapter(
                open_adapter(path, layout),
                ref.digest,
                silo_weight(silo) + (extra_weight if silo == 0 else 0),
            )
            for silo, (path, ref) in enumerate(files)
        ),
        starting=InitialAdapter(layout),
    )
