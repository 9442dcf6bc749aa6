"""How much memory a rank takes at its peak, part by part, before anything is loaded.

The arithmetic follows what PyTorch keeps for the backward pass and what DeepSpeed allocates. It is
an upper bound in one thing: every token is taken for an answer, because how many are is known only
when the records are packed. On CPUs a peak is that of resident memory, and was measured
(docs/memory.md); on GPUs it is device memory by the same arithmetic, and was not.
"""

from dataclasses import dataclass, replace
from typing import Literal

from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.training_recipe import TrainedFactors
from infra.base_model.model_shape import ModelShape
from silo_agent.training.activations_memory import Part, activations, holes
from silo_agent.training.engine_spec import PINNED, Device, measuring_stage
from silo_agent.training.private_memory import record_gradients
from silo_agent.training.rank_work import Choice, Work
from silo_agent.training.weights_memory import (
    FLOAT32_BYTES,
    QUANTISER_BYTES,
    base_bytes,
    linear_bytes,
    resident_bytes,
)

LIBRARIES_BYTES: dict[Device, int] = {"cpu": 400_000_000, "cuda": 600_000_000}
"""Python, PyTorch, DeepSpeed, transformers and PEFT before a model (measured); a CUDA context."""

VOCABULARY_FACTOR = 14
"""A tokenizer in memory, as a multiple of the file with its vocabulary (measured)."""

RECORD_TOKEN_BYTES = 4
"""A token in the mapped file of the records; the kernel can let go of its page."""


@dataclass(frozen=True)
class Estimate:
    """The parts of a rank's memory at the moment at which it is fullest."""

    moment: Literal["loading", "training", "measuring"]
    parts: tuple[Part, ...]

    @property
    def total_bytes(self) -> int:
        """All of it, for one rank."""
        return sum(part.size_bytes for part in self.parts)


def estimate(shape: ModelShape, work: Work, choice: Choice) -> Estimate:
    """The peak of one rank that does `work` on a model of `shape`.

    Where training holds the model otherwise, the pinned one takes its place to be measured.
    """
    found = [training_estimate(shape, work, choice)]
    if not work.held.measures_on(work.device):
        pinned = replace(work, held=PINNED[work.device])
        stage = measuring_stage(choice.zero_stage, work.held, work.ranks)
        found.append(_measuring(shape, pinned, Choice(stage, offload=choice.offload)))
    return max(found, key=lambda each: each.total_bytes)


def training_estimate(shape: ModelShape, work: Work, choice: Choice) -> Estimate:
    """The peak of training alone, or of loading what it is done with."""
    libraries = Part("interpreter, libraries, tokenizer", _libraries(shape, work))
    records = Part("tokens of the round, mapped", work.round_tokens * RECORD_TOKEN_BYTES)
    if work.device == "cuda":
        records = Part(records.name, 0)
    loading = (
        libraries,
        records,
        Part("base weights, while they are read", _loading(shape, work, choice)),
    )
    kept, passing = activations(shape, work, choice)
    training = (
        libraries,
        records,
        Part("base weights", _weights(shape, work, choice)),
        Part("adapter, gradients, optimizer", _trained(work, choice)),
        Part("communication buckets", _buckets(work)),
        Part("activations kept for the backward pass", kept),
        Part("holes that they leave in the heap", holes(shape, work, choice)),
        *record_gradients(shape, work, choice, parameters_of(work.layout, work.trained)),
        passing,
    )
    moments = (Estimate("training", training), Estimate("loading", loading))
    return max(moments, key=lambda each: each.total_bytes)


def _measuring(shape: ModelShape, work: Work, choice: Choice) -> Estimate:
    """A forward pass of one sequence, of which nothing is kept; or what it is loaded with."""
    _, passing = activations(shape, work, choice)
    weights, loading = _weights(shape, work, choice), _loading(shape, work, choice)
    parts = (
        Part("interpreter, libraries, tokenizer", _libraries(shape, work)),
        Part("pinned base weights, to be measured", max(weights, loading)),
        Part("adapter, gradients, optimizer", _trained(work, choice)),
        passing,
    )
    return Estimate("measuring", parts)


def parameters_of(layout: AdapterLayout, factors: TrainedFactors = "both") -> int:
    """Numbers in the factors of an adapter and in what is trained whole, whatever factor is; with
    `core` in the cores and in what is trained whole."""
    if factors == "core":
        return layout.rank**2 * len(layout.pairs) + whole_parameters(layout)
    inputs = sum(target.in_features for target in layout.pairs) * (factors != "b")
    outputs = sum(target.out_features for target in layout.pairs) * (factors != "a")
    return layout.rank * (inputs + outputs) + whole_parameters(layout)


def whole_parameters(layout: AdapterLayout) -> int:
    """Numbers in the tensors that are trained whole."""
    return sum(target.in_features * target.out_features for target in layout.wholes)


def _libraries(shape: ModelShape, work: Work) -> int:
    tokenizer = VOCABULARY_FACTOR * shape.tokenizer_bytes if work.device == "cpu" else 0
    quantiser = QUANTISER_BYTES if work.held.base_weights != "full" else 0
    return LIBRARIES_BYTES[work.device] + tokenizer + quantiser


def _loading(shape: ModelShape, work: Work, choice: Choice) -> int:
    """Files are mapped: what is of the type that is trained in stays where it was mapped."""
    if work.device == "cuda":
        return 0
    if work.held.base_weights != "full":
        # The files stay mapped until the last layer is quantised.
        return shape.file_bytes + linear_bytes(shape, work.held) + shape.largest * FLOAT32_BYTES
    whole = base_bytes(shape, work.held)
    if choice.zero_stage == 3:
        # The first rank reads every file, and the others have their share of it at once.
        return shape.file_bytes + whole // work.ranks + shape.largest * work.number_bytes
    return whole if shape.file_bytes == whole else whole + shape.file_bytes


def _weights(shape: ModelShape, work: Work, choice: Choice) -> int:
    """At stage 3 a share, and what is put together for the module that works."""
    size = work.number_bytes
    if choice.zero_stage < 3:
        return (resident_bytes if work.device == "cpu" else base_bytes)(shape, work.held)
    share = shape.parameters * size // work.ranks
    is_elsewhere = choice.offload != "none" and work.device == "cuda"
    return (0 if is_elsewhere else share) + _gathered(shape) * size


def _gathered(shape: ModelShape) -> int:
    return max(shape.largest, *(tower.layer for tower in shape.towers))


def _trained(work: Work, choice: Choice) -> int:
    """Working and float32 parameters, gradients, two moments; and adapters that stay frozen.

    Stage 1 partitions float32 parameters and moments, stage 2 also gradients, stage 3 all but the
    working parameters, which are small enough to stay whole. Beside each tensor that is trained
    whole PEFT keeps the one of the base model.
    """
    size, trained = work.number_bytes, parameters_of(work.layout, work.trained)
    frozen = parameters_of(work.layout) + whole_parameters(work.layout)
    # A core is beside its bases; what else is trained is a part of the adapter.
    frozen -= whole_parameters(work.layout) if work.trained == "core" else trained
    if work.residual_layout is not None:
        frozen += parameters_of(work.residual_layout)
    states = 3 * FLOAT32_BYTES * trained // work.ranks
    gradients = FLOAT32_BYTES * trained
    if choice.zero_stage >= 2:
        gradients = gradients // work.ranks
    if choice.offload != "none" and work.device == "cuda":
        states = gradients = 0
    return frozen * size + 2 * trained * size + states + gradients


def _buckets(work: Work) -> int:
    """Gradients on their way; the bucket is as large as they are, twice on GPUs."""
    copies = 2 if work.device == "cuda" else 1
    return copies * parameters_of(work.layout, work.trained) * work.number_bytes
