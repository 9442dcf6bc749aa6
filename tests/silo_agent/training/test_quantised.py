"""Base weights of 8 and 4 bits: what is quantised, what stays, and on what losses are measured.

What needs bitsandbytes is skipped where it is not installed; see pyproject.toml.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from data_contracts.adapters.starting_adapter import InitialAdapter, tensors_of
from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from infra.base_model.linear_modules import linear_modules
from silo_agent.training.engine_spec import PINNED, BaseWeights, EngineSpec, HeldAs
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet, TrainingJob
from silo_agent.training.processes.launch import run_evaluation, run_training
from silo_agent.training.processes.resident_ranks import ResidentRanks
from silo_agent.training.quantisation import require_bitsandbytes
from silo_agent.training.results import EvaluationResult, TrainingResult
from tests.silo_agent.training.shared_ranks import told
from tests.silo_agent.training.tiny_jobs import TinySilo, drawn_adapter
from tests.tiny_model import make_tiny_model, tiny_adapter_layout

IS_THERE = find_spec("bitsandbytes") is not None
needs_bitsandbytes = pytest.mark.skipif(
    not IS_THERE, reason="needs bitsandbytes: pip install 'consortia[quantised]'"
)
KINDS: tuple[BaseWeights, ...] = ("8-bit", "4-bit")
ALONE: dict[str, Any] = {"measure_starting": False, "measure_local": False}


def quantised(silo: TinySilo, name: str, **changes: Any) -> TrainingJob:
    return silo.job(name, **{"base_weights": "8-bit", **ALONE, **changes})


def test_a_package_that_is_missing_is_named_with_what_installs_it() -> None:
    require_bitsandbytes("full")
    if IS_THERE:
        require_bitsandbytes("8-bit")
        return
    with pytest.raises(SiloOperatorError, match=r"pip install 'consortia\[quantised\]'"):
        require_bitsandbytes("8-bit")


@pytest.mark.parametrize(
    "changes",
    [
        {"zero_stage": 3},
        {"measure_starting": True},
        {"measure_base": True},
        {"measure_local": True},
    ],
)
def test_a_quantised_job_measures_nothing_and_is_not_partitioned(
    silo: TinySilo, changes: dict[str, Any]
) -> None:
    assert not quantised(silo, "valid").measures
    with pytest.raises(ValidationError, match=r"at stage 1 or 2|held-out losses of the pinned"):
        quantised(silo, "invalid", **changes)


@pytest.mark.parametrize("held", [HeldAs("bfloat16"), HeldAs("float32", "8-bit")])
def test_an_engine_that_trains_otherwise_is_none_to_measure_on(
    silo: TinySilo, held: HeldAs
) -> None:
    """The ranks keep one engine, and exchange it where the model is not what is asked for."""
    plain = silo.job("plain").engine
    other = silo.job("other", **vars(held), **ALONE).engine
    assert plain.measures and not other.measures
    assert not other.measures_as(plain) and not plain.measures_as(other)
    pinned = other.for_measuring
    assert pinned.held == PINNED["cpu"] and pinned.measures_as(plain)
    assert pinned.zero_stage == (3 if held.base_weights == "8-bit" else other.zero_stage)
    assert plain.for_measuring == plain
    measuring(silo, plain)
    with pytest.raises(ValidationError, match="pinned base model, to measure on"):
        measuring(silo, other)


def measuring(silo: TinySilo, engine: EngineSpec | None, name: str = "losses") -> EvaluationJob:
    adapters = (
        EvaluatedAdapter(name="base", path=None),
        EvaluatedAdapter(name="candidate", path=candidate(silo)),
    )
    return EvaluationJob(
        model_dir=silo.model_dir,
        layout=tiny_adapter_layout(),
        adapters=adapters,
        heldout=(HeldoutSet(name="heldout", records=silo.heldout_records),),
        sequence_length=96,
        heldout_sequences=8,
        output_dir=silo.root / name,
        engine=engine,
    )


def candidate(silo: TinySilo) -> Path:
    path = silo.root / "candidate.safetensors"
    return path if path.exists() else drawn_adapter(path, tiny_adapter_layout(), 0.1)


Trained = dict[str, TrainingResult | EvaluationResult]


@pytest.fixture(scope="session")
def trained(silo: TinySilo) -> Iterator[Trained]:
    """In the same two ranks: training with quantised weights, measuring, and training again."""
    ranks = ResidentRanks(silo.root, 600)
    first = quantised(silo, "eight", zero_stage=1)
    jobs = {
        "eight": first,
        "four": quantised(silo, "four", base_weights="4-bit", precision="bfloat16"),
        "eight-again": first.model_copy(update={"output_dir": silo.root / "eight-again"}),
        "full": silo.job("in-full", **ALONE),
    }
    found: Trained = {}
    try:
        for name, job in jobs.items():
            found[name] = run_training(job, ranks=ranks)
            engine = job.engine.for_measuring
            losses = measuring(silo, engine, f"losses-of-{name}")
            found[f"losses of {name}"] = run_evaluation(losses, ranks=ranks)
        yield found
    finally:
        ranks.end()


@needs_bitsandbytes
@pytest.mark.stack
def test_losses_of_a_silo_that_trains_quantised_are_those_of_the_pinned_model(
    silo: TinySilo, trained: Trained
) -> None:
    """What decides a publication must not depend on how a silo saves memory."""
    plain = losses_of(run_evaluation(measuring(silo, None, "losses-alone")))
    assert losses_of(trained["losses of full"]) == pytest.approx(plain, rel=1e-6)
    for name in ("eight", "four", "eight-again"):
        assert losses_of(trained[f"losses of {name}"]) == pytest.approx(plain, rel=1e-6)


def losses_of(result: object) -> list[float]:
    assert isinstance(result, EvaluationResult)
    return [loss.nats for loss in result.losses]


@needs_bitsandbytes
@pytest.mark.stack
def test_quantised_ranks_learn_and_say_how_weights_were_held(
    silo: TinySilo, trained: Trained
) -> None:
    """Near full weights, and not them: else nothing was quantised. Measured: last losses that
    differ by 0.002 and 0.03."""
    found = {name: trained[name] for name in ("eight", "four", "full")}
    results = {name: each for name, each in found.items() if isinstance(each, TrainingResult)}
    assert {name: each.base_weights for name, each in results.items()} == {
        "eight": "8-bit",
        "four": "4-bit",
        "full": "full",
    }
    for name in ("eight", "four"):
        result = results[name]
        first, last = told(result.first_step_loss), told(result.last_step_loss)
        assert first - last > 0.7
        assert 1e-4 < abs(last - told(results["full"].last_step_loss)) < 0.1
        assert result.packing.together, "conversations are kept apart in what trains"
    again = trained["eight-again"]
    assert isinstance(again, TrainingResult)
    assert again.adapter.read_bytes() == results["eight"].adapter.read_bytes()


def tiny_gpt2(directory: Path) -> Path:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    make_tiny_model(directory)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        sizes: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}
        ends = {"bos_token_id": 0, "eos_token_id": 1}
        # Without dropout: losses of the same model are compared in training.
        drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        config = GPT2Config(**sizes, **ends, **drops, vocab_size=512, initializer_range=0.2)
        GPT2LMHeadModel(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT-2 has its linear layers the other way round, as Conv1D."""
    directory = tmp_path_factory.mktemp(request.param) / "model"
    return make_tiny_model(directory) if request.param == "llama" else tiny_gpt2(directory)


@needs_bitsandbytes
@pytest.mark.parametrize("base_weights", KINDS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_linear_layers_are_quantised_and_only_lora_is_trained(
    folder: Path, base_weights: BaseWeights, precision: Any
) -> None:
    import torch

    from silo_agent.training.ranks.lora_model import (
        adapter_parameters,
        load_lora_model,
        set_adapter,
        trained_parameters,
    )
    from silo_agent.training.ranks.quantised import quantised_layers

    modules = linear_modules(folder).modules
    layout = AdapterLayout(rank=4, alpha=8, seed=1, targets=modules)
    full, small = (
        load_lora_model(folder, layout, "cpu", held=HeldAs(precision, weights)).train()
        for weights in ("full", base_weights)
    )
    assert quantised_layers(full) == []
    inner = [each for each in quantised_layers(small) if not hasattr(each, "base_layer")]
    assert len(inner) == len(modules)
    bits = {"8-bit": torch.int8, "4-bit": torch.uint8}[base_weights]
    assert {layer.weight.dtype for layer in inner} == {bits}
    dtype = getattr(torch, precision)
    rest = [p.dtype for p in small.parameters() if p.dtype is not bits]
    assert set(rest) == {dtype}, "LoRA, embeddings, norms and the tied head"
    assert len(adapter_parameters(small)) == 2 * len(modules)
    before = [layer.weight.detach().clone() for layer in inner]
    ids = torch.arange(24).reshape(1, 24)
    losses = []
    for model in (full, small):
        set_adapter(model, tensors_of(InitialAdapter(layout)).items())
        losses.append(float(model(input_ids=ids, labels=ids, use_cache=False).loss.detach()))
    assert 0 < abs(losses[1] - losses[0]) < 0.1 * losses[0], "near, and not the same"
    parameters = trained_parameters(small)
    optimizer = torch.optim.SGD(parameters.values(), lr=0.005)
    for _ in range(3):
        optimizer.zero_grad()
        small(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
    moved = [float(p.detach().float().abs().max()) for n, p in parameters.items() if "lora_B" in n]
    assert min(moved) > 0, "gradients come to every module"
    after = float(small(input_ids=ids, labels=ids, use_cache=False).loss.detach())
    assert np.isfinite(after) and after < losses[1]
    assert all(torch.equal(a, layer.weight) for a, layer in zip(before, inner, strict=True))


@needs_bitsandbytes
def test_a_model_without_layers_to_quantise_is_refused() -> None:
    import torch

    from silo_agent.training.ranks.quantised import require_quantised

    model = torch.nn.Sequential(torch.nn.Embedding(4, 4), torch.nn.LayerNorm(4))
    require_quantised(model, "full")
    with pytest.raises(SiloOperatorError, match="linear layers that bitsandbytes can quantise"):
        require_quantised(model, "8-bit")
