"""A plan for the tiny model, and a home whose policy allows it, for tests that really measure."""

from pathlib import Path
from typing import Any

from data_contracts.protocol.records.merge_spec import MergeSpec
from infra.disk.model_files import model_digest
from tests.aggregator.federation_samples import Federation, federation
from tests.silo_agent.test_policy import EXACT, POLICY
from tests.tiny_model import make_tiny_model, tiny_adapter_layout

RESIDUAL_RANK = 2


def tiny_federation(home: Path) -> Federation:
    """Its plan merges with a residual and starts from the base model, which lies in `home`."""
    model = make_tiny_model(home / "model")
    digest = model_digest(model, home / "digests.json")
    text = POLICY.format(**{**EXACT, "digest": digest}).replace("/models/a", str(model))
    (home / "policy.toml").write_text(text)
    plain = federation().plan.record
    changes: dict[str, Any] = {
        "base_model": plain.base_model.model_copy(update={"digest": digest}),
        "layout": tiny_adapter_layout(),
        "recipe": plain.recipe.model_copy(update={"sequence_length": 96}),
        "merge": MergeSpec(rule="residual", weight_cap_tokens=1000, residual_rank=RESIDUAL_RANK),
        "starting_adapter": None,
    }
    return federation(**changes)
