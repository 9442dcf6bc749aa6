"""An exported personal adapter of a family with a head loads by the lines of its own README."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.adapters.starting_adapter import Float32Array, InitialAdapter, tensors_of
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.model_family import FamilyTask
from data_contracts.protocol.records.round_plan import ANY_DAY
from infra.base_model.linear_modules import linear_modules
from silo_agent.personal.export import export_personal
from silo_agent.personal.job import personal_layout
from silo_agent.personal.kept import PersonalAdapter, PersonalAdapters, PersonalFacts
from silo_agent.training.adapter_file import write_adapter
from tests.silo_agent.personal.test_export import BASE
from tests.tiny_encoders import CLASSES, make_tiny_bert

HEAD = "base_model.model.classifier.weight"


def moved(layout: AdapterLayout, seed: int) -> dict[str, Float32Array]:
    """An adapter of a layout that changes the model."""
    rng = np.random.default_rng(seed)
    tensors = tensors_of(InitialAdapter(layout))
    return {
        name: (each + rng.normal(0, 0.1, each.shape)).astype(np.float32)
        for name, each in tensors.items()
    }


def kept(root: Path, method: str, task: FamilyTask, whole: AdapterLayout) -> PersonalAdapter:
    """A personal adapter as an agent keeps it, beside the federation's where it is `dual`."""
    own = personal_layout(method, whole)
    trained, beside = root / "trained.safetensors", root / "beside.safetensors"
    write_adapter(trained, own, moved(own, 1))
    write_adapter(beside, whole, moved(whole, 2))
    is_dual = method == "dual"
    loss = {"nats": 1.0, "tokens": 10}
    facts = PersonalFacts.model_validate(
        {
            "method": method,
            "federation": "demo",
            "run": "run-1",
            "round": 2,
            "attempt": 1,
            "base_model": BASE,
            "prompt_date": ANY_DAY,
            "precision": "float32",
            "issued_at": "2026-01-01T00:00:00Z",
            "layout": own,
            "beside_layout": whole if is_dual else None,
            "digest": artifact_of_file(trained).digest,
            "beside_digest": artifact_of_file(beside).digest if is_dual else None,
            "global_digest": None,
            "steps": 1,
            "tokens": 1,
            "heldout_digest": "0" * 64,
            "heldout_sequences": 1,
            "measures": {"own": loss, "used": loss},
            "task": task,
        }
    )
    adapters = PersonalAdapters(root / "home", "run-1")
    adapters.keep(facts, trained, beside if is_dual else None)
    found = adapters.of_round(2)
    assert found is not None
    return found


@pytest.mark.parametrize("method", ["dual", "ditto"])
def test_a_head_comes_with_the_exported_folder(tmp_path: Path, method: str) -> None:
    import torch

    model_dir = make_tiny_bert(tmp_path / "bert")
    task = FamilyTask(family="sequence-classification", classes=CLASSES)
    found = linear_modules(model_dir, task)
    whole = AdapterLayout(rank=4, alpha=8, seed=3, targets=found.modules + found.head)
    export_personal(kept(tmp_path, method, task, whole), tmp_path / "own")
    readme = (tmp_path / "own" / "README.md").read_text()
    assert "Its classes, in the order of the head: cards, codes, transfers" in readme
    names: dict[str, Any] = {"folder": str(tmp_path / "own"), "base_folder": str(model_dir)}
    for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL):
        exec(code, names)  # noqa: S102
    head = names["model"].get_parameter(
        "base_model.model.classifier.modules_to_save.default.weight"
    )
    expected = moved(whole, 2 if method == "dual" else 1)[HEAD]
    assert torch.equal(head, torch.from_numpy(expected))
    inputs = names["tokenizer"]("lost card", return_tensors="pt")
    assert names["model"](**inputs).logits.shape == (1, len(CLASSES))


def test_facts_of_an_earlier_release_are_of_a_causal_model() -> None:
    assert PersonalFacts.model_fields["task"].default.family == "causal-lm"
