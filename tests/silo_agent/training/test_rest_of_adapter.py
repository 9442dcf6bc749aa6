"""A silo of lower rank trains in the model that the round starts from, not in a part of it."""

from pathlib import Path

import torch

from data_contracts.adapters.starting_adapter import (
    AdapterSource,
    RestOfAdapter,
    narrowed,
    tensors_of,
)
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from silo_agent.training.ranks.lora_model import (
    RESIDUAL_NAME,
    load_lora_model,
    set_adapter,
    trained_parameters,
)
from tests.aggregator.adapter_samples import write_adapter
from tests.tiny_model import make_tiny_model, tiny_adapter_layout

WIDE = tiny_adapter_layout(rank=4)
NARROW = WIDE.model_copy(update={"rank": 2, "alpha": 6, "targets": WIDE.targets[:3]})
TOKENS = torch.arange(1, 17).reshape(2, 8)


def logits(
    model_dir: Path, start: AdapterSource, layout: AdapterLayout, rest: RestOfAdapter | None = None
) -> torch.Tensor:
    """Of the base with `start` in `layout`, and with the rest where there is one."""
    residual = None if rest is None else rest.layout
    model = load_lora_model(model_dir, layout, "cpu", residual=residual)
    set_adapter(model, tensors_of(narrowed(start, layout)).items())
    if rest is not None:
        set_adapter(model, tensors_of(rest).items(), RESIDUAL_NAME)
        trained = {name for name in trained_parameters(model) if "lora_" in name}
        assert len(trained) == 2 * len(layout.targets)
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=TOKENS).logits
    return found


def test_the_part_and_the_rest_are_the_starting_model(tmp_path: Path) -> None:
    model_dir = make_tiny_model(tmp_path / "model")
    start = write_adapter(tmp_path / "start", WIDE, seed=3)
    whole = logits(model_dir, start, WIDE)
    part = logits(model_dir, start, NARROW)
    both = logits(model_dir, start, NARROW, RestOfAdapter(start, NARROW))
    scale = float(whole.abs().max())
    assert float((both - whole).abs().max()) < 1e-3 * scale
    assert float((part - whole).abs().max()) > 0.05 * scale
