"""Cores between fixed bases: DeepSpeed's against plain PyTorch's, and the adapter that they make.

Two ranks at ZeRO-2 and ZeRO-3, one rank at ZeRO-1; the launches are shared, see `conftest`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from aggregator.merge.adapter_merge import merge_adapters
from aggregator.merge.merge_inputs import LocalAdapter, MergeInputs
from aggregator.publishing.publish import PeftAdapter, write_published
from data_contracts.adapters.adapter_format import check_adapter, open_adapter
from data_contracts.adapters.core_bases import UnmovedCores, WithBases, core_name
from data_contracts.adapters.starting_adapter import Float32Array, tensors_of
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.merge_spec import FedAvg, MergeSpec
from silo_agent.training.adapter_file import write_adapter
from silo_agent.training.job import TrainingJob
from silo_agent.training.ranks.lora_model import (
    adapter_parameters,
    load_lora_model,
    set_adapter,
    trained_parameters,
)
from silo_agent.training.ranks.starting_tensors import bases_and_cores, starting_tensors
from silo_agent.training.run_files import RunFiles
from tests.silo_agent.training.plain_torch import source_of, train_cores_plainly
from tests.silo_agent.training.tiny_jobs import RECIPE_LAYOUT, Jobs, TinySilo, drawn_adapter

pytestmark = pytest.mark.stack

LAYOUT = RECIPE_LAYOUT
TOLERANCE = 1e-5
MODEL = BaseModelRef(name="tiny", digest="0" * 64, licence="MIT")


def changes_of(job: TrainingJob) -> dict[str, Float32Array]:
    """What the ranks left of a job, through the gate of what silos send."""
    return tensors_of(check_adapter(RunFiles(job.output_dir).adapter, LAYOUT.cores))


def assert_near(found: dict[str, Float32Array], expected: dict[str, Float32Array]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.abs(values).max() > 0.005
        np.testing.assert_allclose(found[name], values, atol=TOLERANCE)


def test_the_ranks_come_to_what_explicit_products_come_to(one_rank: Jobs) -> None:
    """No LoRA module, no frozen factor: autograd through W + s B C A, AdamW and the proximal term,
    from a trained adapter and from the seed."""
    for name in ("cored-zero-1", "cored-zero-1-between"):
        assert_near(changes_of(one_rank[name]), train_cores_plainly(one_rank[name]))


@pytest.mark.parametrize("name", ["cored-zero-2", "cored-zero-3"])
def test_two_ranks_come_to_the_same_as_one(one_rank: Jobs, two_ranks: Jobs, name: str) -> None:
    assert_near(changes_of(two_ranks[name]), changes_of(one_rank["cored-zero-1"]))


def test_a_used_engine_trains_what_a_new_one_trains(one_rank: Jobs, two_ranks: Jobs) -> None:
    for jobs, name in ((one_rank, "cored-zero-1"), (two_ranks, "cored-zero-2")):
        first, between, again = (
            RunFiles(jobs[each].output_dir).adapter.read_bytes()
            for each in (name, f"{name}-between", f"{name}-again")
        )
        assert first == again
        assert first != between


def test_what_leaves_is_squares_of_the_rank(one_rank: Jobs) -> None:
    sent = RunFiles(one_rank["cored-zero-1"].output_dir).adapter
    with pytest.raises(UntrustedInputError):
        open_adapter(sent, LAYOUT)
    numbers = sum(values.size for values in changes_of(one_rank["cored-zero-1"]).values())
    assert numbers == len(LAYOUT.targets) * LAYOUT.rank**2


def logits_of(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(48).reshape(2, 24) % 500).logits
    return found


@pytest.fixture(scope="module")
def cored(silo: TinySilo) -> Any:
    return load_lora_model(silo.model_dir, LAYOUT, "cpu", trained="core")


def test_a_model_with_identities_for_cores_is_the_one_without_to_the_bit(
    silo: TinySilo, cored: Any, tmp_path: Path
) -> None:
    plain = load_lora_model(silo.model_dir, LAYOUT, "cpu")
    path = drawn_adapter(tmp_path / "start.safetensors", LAYOUT, 0.3)
    for model in (plain, cored):
        set_adapter(model, starting_tensors(LAYOUT, path))
    assert torch.equal(logits_of(plain), logits_of(cored))
    # And so is the one with bases and cores that are the same adapter.
    set_adapter(cored, bases_and_cores(open_adapter(path, LAYOUT)))
    assert torch.equal(logits_of(plain), logits_of(cored))
    set_adapter(cored, starting_tensors(LAYOUT, path))
    assert torch.equal(logits_of(plain), logits_of(cored)), "a core that is not named is none"


def test_only_cores_are_trained_and_peft_sees_its_own_names(cored: Any) -> None:
    assert set(trained_parameters(cored)) == {core_name(target) for target in LAYOUT.targets}
    asked = [name for name, p in cored.named_parameters() if p.requires_grad]
    assert len(asked) == len(LAYOUT.targets)
    assert set(adapter_parameters(cored)) == set(tensors_of(source_of(LAYOUT, None)))


@pytest.mark.parametrize("is_first", [True, False], ids=["from the seed", "from an adapter"])
def test_what_is_published_is_loaded_by_plain_peft_and_is_the_model_that_was_trained(
    silo: TinySilo, cored: Any, tmp_path: Path, is_first: bool
) -> None:
    path = None if is_first else drawn_adapter(tmp_path / "start.safetensors", LAYOUT, 0.3)
    start = source_of(LAYOUT, path)
    rng = np.random.default_rng(5)
    changes = tensors_of(UnmovedCores(start))
    for change in changes.values():
        change += rng.standard_normal(change.shape).astype(np.float32) * 0.1
    cores = dict(bases_and_cores(start))
    moved = {name: cores[name] + change for name, change in changes.items()}
    set_adapter(cored, (cores | moved).items())
    write_adapter(tmp_path / "sent.safetensors", LAYOUT.cores, changes)
    sent = WithBases(start, open_adapter(tmp_path / "sent.safetensors", LAYOUT.cores))
    merge_adapters(
        MergeInputs(
            layout=LAYOUT,
            merge=MergeSpec(rule="fed_sb", weight_cap_tokens=10, optimizer=FedAvg()),
            round_number=2,
            locals=(LocalAdapter(sent, "0" * 64, 10),),
            starting=start,
        ),
        tmp_path / "merged.safetensors",
    )
    adapter = PeftAdapter(tmp_path / "merged.safetensors", LAYOUT, MODEL)
    write_published(tmp_path / "published", adapter, b"card")
    base = AutoModelForCausalLM.from_pretrained(silo.model_dir, dtype=torch.float32)
    before = logits_of(base).clone()
    published = PeftModel.from_pretrained(base, tmp_path / "published")
    torch.testing.assert_close(logits_of(published), logits_of(cored), atol=1e-4, rtol=1e-4)
    assert (logits_of(published) - before).abs().max() > 0.01
