"""A personal adapter as a folder that plain PEFT loads, for use inside the institution.

    README.md                   how it is loaded, and what it is worth
    adapter_config.json         one LoRA: the federation's and this silo's, side by side
    adapter_model.safetensors
    global/                     for `dual`: the federation's alone, for what the gate leaves to it
    gate.json                   for `dual`: the gate
    provenance.json             digests, round, method, losses

Under the rule `shared_a` it is the A of all with this silo's own B: README, the two files of PEFT
and the provenance, without losses or gate.

Nothing of it is sent anywhere; all files are readable by their owner alone. The folder is written
aside and renamed, so that it is whole or not there.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.peft_config import CONFIG_NAME, WEIGHTS_NAME, peft_config
from data_contracts.adapters.starting_adapter import AdapterSource, tensors_of
from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.model_family import ModelFamily
from infra.disk.durable_files import sync_directory, write_durably
from silo_agent.personal.joined import JoinedAdapter
from silo_agent.personal.kept import PersonalAdapter, newest_of_all
from silo_agent.personal.own_factors import OwnAdapter, newest_own
from silo_agent.personal.readme import own_readme, readme
from silo_agent.training.adapter_file import write_adapter

GATE_NAME, GLOBAL_NAME, PROVENANCE_NAME = "gate.json", "global", "provenance.json"
WHAT_THE_GATE_TAKES = (
    "a prompt where the cosine of its last hidden state (last layer, last token; with the adapter "
    "in global/, or the base model alone where there is none) with `centre` is at least `threshold`"
)


def newest_exported(home: Path) -> PersonalAdapter | OwnAdapter | None:
    """What is exported where nothing else is said: of a personal adapter and of A of all with this
    silo's own B the one of the later plan."""
    adapter, own = newest_of_all(home), newest_own(home)
    if adapter is None or own is None:
        return adapter or own
    return own if own.facts.issued_at >= adapter.facts.issued_at else adapter


def export_personal(adapter: PersonalAdapter, into: Path) -> None:
    """Write the folder `into`, which is not there yet or empty.

    Raises SiloOperatorError, and has then written nothing, where it is not, or where a file is no
    longer the one that was measured.
    """
    _require_room(into)
    _require_measured(adapter)
    _written_whole(into, lambda aside: _write(adapter, aside))


def export_own(adapter: OwnAdapter, into: Path) -> None:
    """As `export_personal`, for A of all with this silo's own B."""
    _require_room(into)
    _written_whole(into, lambda aside: _write_own(adapter, aside))


def _written_whole(into: Path, write: Callable[[Path], None]) -> None:
    aside = into.with_name(f".{into.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True, mode=0o700)
        write(aside)
        if into.exists():
            into.rmdir()
        aside.rename(into)
        sync_directory(into.parent)
    except OSError as error:
        raise _refused(into, "room and permission to write it", error.strerror or "a fault") from (
            error
        )
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(adapter: PersonalAdapter, into: Path) -> None:
    facts, family = adapter.facts, adapter.facts.task.family
    trained: AdapterSource = open_adapter(adapter.trained, facts.layout)
    if adapter.beside is not None and facts.beside_layout is not None:
        beside = open_adapter(adapter.beside, facts.beside_layout)
        _write_peft(into, JoinedAdapter((beside, trained)), facts.base_model, family)
        if facts.method == "dual":
            _write_peft(into / GLOBAL_NAME, beside, facts.base_model, family)
    else:
        _write_peft(into, trained, facts.base_model, family)
    if facts.measures.gate is not None:
        gate = {"takes": WHAT_THE_GATE_TAKES, **facts.measures.gate.model_dump(mode="json")}
        write_durably(into / GATE_NAME, _json(gate))
    provenance = facts.model_dump(mode="json")
    provenance["exported"] = artifact_of_file(into / WEIGHTS_NAME).model_dump()
    write_durably(into / PROVENANCE_NAME, _json(provenance))
    write_durably(into / "README.md", readme(adapter).encode())


def _write_own(adapter: OwnAdapter, into: Path) -> None:
    facts = adapter.facts
    _write_peft(into, adapter.source, facts.base_model, facts.task.family)
    provenance = facts.model_dump(mode="json") | {
        "method": "shared_a",
        "shared_round": adapter.round,
        "shared_digest": artifact_of_file(adapter.shared).digest,
        "exported": artifact_of_file(into / WEIGHTS_NAME).model_dump(),
    }
    write_durably(into / PROVENANCE_NAME, _json(provenance))
    write_durably(into / "README.md", own_readme(adapter).encode())


def _write_peft(
    directory: Path,
    adapter: AdapterSource,
    base_model: BaseModelRef,
    family: ModelFamily,
) -> None:
    directory.mkdir(exist_ok=True, mode=0o700)
    write_durably(directory / CONFIG_NAME, _json(peft_config(adapter.layout, base_model, family)))
    write_adapter(directory / WEIGHTS_NAME, adapter.layout, tensors_of(adapter))


def _require_room(into: Path) -> None:
    if into.is_symlink() or (into.exists() and not into.is_dir()):
        raise _refused(into, "a folder that is not there yet, or an empty one", "something else")
    found = sorted(path.name for path in into.iterdir()) if into.is_dir() else []
    if found:
        there = f"{len(found)} files or folders in it, such as {found[0]}"
        raise _refused(into, "a folder that is not there yet, or an empty one", there)


def _require_measured(adapter: PersonalAdapter) -> None:
    facts = adapter.facts
    files = [(adapter.trained, facts.digest)]
    if adapter.beside is not None:
        files.append((adapter.beside, facts.beside_digest or ""))
    for path, digest in files:
        found = artifact_of_file(path).digest
        if found != digest:
            raise SiloOperatorError(
                f"personal adapter {path}",
                expected=f"the file that was measured, with digest {digest}",
                found=found,
                action="remove it, look into the disk's health, and export again: the one of the "
                "round before is taken, or the next round makes another",
            )


def _refused(into: Path, expected: str, found: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"folder for the personal adapter, {into}",
        expected=expected,
        found=found,
        action="name another folder, or make room there",
    )


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
