"""What cannot be private is refused by its name, before anything starts."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records.model_family import FamilyTask
from silo_agent.training.job import TrainingJob
from silo_agent.training.personal_part import PersonalPart
from silo_agent.training.private_part import PrivatePart
from silo_agent.training.silo_only import SiloOnlyBaseline
from tests.silo_agent.training.private.record_samples import drawn_secret
from tests.silo_agent.training.tiny_jobs import TinySilo, tiny_recipe
from tests.tiny_model import write_records

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "contrastive": ({"task": FamilyTask(family="dual-encoder")}, "dual-encoder.*no sum"),
    "measured": ({"measure_local": True}, "measure_local"),
    "offloaded": ({"offload": "cpu"}, "offload cpu"),
    "personal": ({"personal": PersonalPart()}, "a personal part"),
    "pulled": (
        {"recipe": tiny_recipe().model_copy(update={"proximal_mu": Decimal("0.1")})},
        "a proximal term of 0.1",
    ),
    "rounded": (
        {
            "base_weights": "8-bit",
            "device": "cuda",
            "measure_starting": False,
        },
        "8-bit base_weights on cuda",
    ),
    "silo-only": ({"silo_only": SiloOnlyBaseline(enabled=True)}, "a silo-only baseline"),
    "stage-2": ({"zero_stage": 2}, "zero_stage 2, only 1"),
    "stage-3": ({"zero_stage": 3}, "zero_stage 3, only 1"),
}


def job_of(root: Path, private: PrivatePart | None, **changes: Any) -> TrainingJob:
    """One that can be private, unless something is changed."""
    silo = TinySilo(root, root / "model", root / "train.jsonl", root / "heldout.jsonl")
    options = {"zero_stage": 1, "measure_local": False, "private": private}
    return silo.job("work", **{**options, **changes})


def part(root: Path, **changes: Any) -> PrivatePart:
    """Of records."""
    fields: dict[str, Any] = {
        "unit": "record",
        "clipping_norm": Decimal("1"),
        "noise_multiplier": Decimal("1"),
        "sampling_rate": Decimal("0.1"),
        "expected_units": 4,
        "secret": root / "secret",
    }
    return PrivatePart(**{**fields, **changes})


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_private_is_refused_by_name(name: str, tmp_path: Path) -> None:
    changes, named = REFUSED[name]
    with pytest.raises(ValidationError, match=f"a private training cannot have .*{named}"):
        job_of(tmp_path, part(tmp_path), **changes)


@pytest.mark.parametrize("name", sorted(REFUSED.keys() - {"measured"}))
def test_a_plain_job_has_it_all_the_same(name: str, tmp_path: Path) -> None:
    assert job_of(tmp_path, None, **REFUSED[name][0]).private is None


def test_an_engine_of_private_jobs_is_given_one_gradient_a_step(tmp_path: Path) -> None:
    plain, private = (job_of(tmp_path, each).engine for each in (None, part(tmp_path)))
    assert (plain.backward_passes, private.backward_passes) == (2, 1)
    assert plain != private
    assert private.measures_as(plain), "held-out losses are those of the same model"
    assert "private" not in plain.model_dump(), "engines are described as ever"


def test_a_job_is_bound_to_the_units_of_its_records_and_not_to_its_secret_s_bytes(
    tmp_path: Path,
) -> None:
    for name in ("train", "heldout"):
        write_records(tmp_path / f"{name}.jsonl", 3)
    drawn_secret(tmp_path / "secret")
    (tmp_path / "units").write_bytes(bytes(12))
    job = job_of(tmp_path, part(tmp_path, unit="subject", units=tmp_path / "units"))
    first = job.fingerprint()
    drawn_secret(tmp_path / "secret", byte=9)
    assert job.fingerprint() == first
    (tmp_path / "units").write_bytes(bytes(8) + b"\1\0\0\0")
    assert job.fingerprint() != first
    (tmp_path / "units").unlink()
    with pytest.raises(SiloOperatorError, match="units"):
        job.fingerprint()
