"""What forward and backward passes take: tensors that are kept, those on top, holes in the heap."""

from dataclasses import dataclass

from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.model_family import CAUSAL
from infra.base_model.model_shape import PICTURES, Activation, ModelShape
from silo_agent.training.lora_inputs import lora_inputs
from silo_agent.training.rank_work import Choice, Work
from silo_agent.training.weights_memory import FLOAT32_BYTES

LOGITS_AT_ONCE = 3
"""Backward of cross entropy: log-probabilities, their gradient, and that of the logits."""

SOFTCAP_LOGITS = 1
MASKED_SHARE = 0.15
"""Of the tokens of a masked language model; logits of the others only have a gradient, of zero."""

KEPT_BY: dict[Activation, int] = {"fused": 1, "relu": 1, "scaled": 2, "composed": 4}
"""Tensors that an activation function keeps, as wide as the feed-forward part."""

HOLES_SHARE = 0.65
"""Of what layers pass through the heap (measured: 0.5 to 0.8, docs/memory.md)."""

WEIGHT_PASSES = {"partitioned": 0.75, "quantised": 2.0}
"""How often the weights of a layer count in the same way; where they are shared out the layer's own
tensors take a part of the places that they leave (measured)."""

LARGEST_IN_HEAP_BYTES = 32 * 2**20
"""glibc maps what is larger by itself, and gives it back (mallopt(3), M_MMAP_THRESHOLD)."""


@dataclass(frozen=True)
class Part:
    """Some of a rank's memory, under the name by which it is shown."""

    name: str
    size_bytes: int


def activations(shape: ModelShape, work: Work, choice: Choice) -> tuple[int, Part]:
    """What the forward pass leaves behind, and the larger of what comes on top of it: the logits
    with their gradients, or one layer in its backward pass."""
    towers = _towers(shape, work, choice)
    layer = [tower.layer_bytes for tower in towers]
    working = [tower.working_bytes for tower in towers]
    kept = [tower.shape.layers * size for tower, size in zip(towers, layer, strict=True)]
    if choice.gradient_checkpointing:
        kept = [tower.shape.layers * tower.number * tower.shape.hidden for tower in towers]
        working = [sum(both) for both in zip(working, layer, strict=True)]
    # The mask of all layers, embeddings and the last norm; and what goes into a trained head.
    heads = sum(each.in_features for each in work.layout.wholes if each.whole == "matrix")
    ends = sum(tower.number * 2 * tower.shape.hidden for tower in towers)
    passing = (
        Part(
            f"logits of {shape.vocabulary:,} words and their gradients",
            _logits(shape, work, choice),
        ),
        Part("a layer in its backward pass", max(working)),
    )
    kept_bytes = sum(kept) + ends + towers[0].number * heads
    return kept_bytes, max(passing, key=lambda part: part.size_bytes)


def holes(shape: ModelShape, work: Work, choice: Choice) -> int:
    """What lies free in the heap between tensors that stay, also where layers are computed again:
    what passed through it once is not given back. Larger tensors are not in the heap, and scores of
    attention, the largest of a layer, leave places in which the others fit. At stage 3 the weights
    of each layer pass through it too, and quantised ones in each pass."""
    if work.device == "cuda":
        return 0
    return int(HOLES_SHARE * sum(_in_heap(tower) for tower in _towers(shape, work, choice)))


@dataclass(frozen=True)
class _Tower:
    """The layers that a micro-batch goes through, of text or of pictures, in rows of `length`."""

    shape: ModelShape
    work: Work
    choice: Choice
    length: int
    pairs: tuple[AdapterTarget, ...]

    @property
    def number(self) -> int:
        """Bytes of one number for each token of a micro-batch."""
        return self.choice.micro_batch * self.length * self.work.number_bytes

    @property
    def layer_bytes(self) -> int:
        """What a layer keeps."""
        return self.number * sum(width * count for width, count in self.tensors())

    @property
    def working_bytes(self) -> int:
        """What a layer takes in its backward pass beside that."""
        shape, scores = self.shape, 0
        if shape.keeps_scores:
            scores = 2 * self.number * shape.heads * self.length
        return self.number * (3 * shape.feed_forward + 3 * shape.hidden) + scores

    def tensors(self) -> list[tuple[int, int]]:
        """What one layer keeps: numbers a token of a kind of tensor, and how many of that kind."""
        shape, layout = self.shape, self.work.layout
        width, inner, attention = shape.hidden, shape.feed_forward, shape.attention_width
        # Inputs of norms; query, key, value and output.
        kept = [(width, shape.norms), (attention, shape.head_norms + 4)]
        if shape.keeps_scores:
            # Scores, their dropout, and what it left.
            kept.append((shape.heads * self.length, 3))
        else:
            # The mask is made float32 again in each layer.
            kept += [(shape.heads, 1), (self.length, 1)]
        if shape.has_residual_dropout:
            kept.append((width, 2))
        kept.append((inner, 3 if shape.is_gated else KEPT_BY[shape.activation]))
        if self.work.trained in ("both", "a") or self.choice.zero_stage == 3:
            kept += lora_inputs(shape, self.pairs)
        kept.append((layout.rank, max(1, len(self.pairs) // shape.layers)))
        return kept


def _towers(shape: ModelShape, work: Work, choice: Choice) -> list[_Tower]:
    text, pairs = work.row_tokens(shape), tuple(work.layout.pairs)
    pictures = shape.pictures
    if pictures is None:
        return [_Tower(shape, work, choice, text, pairs)]
    looking = tuple(each for each in pairs if each.module.startswith(PICTURES))
    reading = tuple(each for each in pairs if each not in looking)
    return [
        _Tower(shape, work, choice, text, reading),
        _Tower(pictures, work, choice, pictures.context or 1, looking),
    ]


def _in_heap(tower: _Tower) -> float:
    """What passes through the heap in a forward pass, as far as it leaves holes there."""
    shape, work = tower.shape, tower.work
    scores = shape.heads * tower.length if shape.keeps_scores else 0
    kept = ((tower.number * width, count) for width, count in tower.tensors() if width != scores)
    in_heap: float = sum(size * count for size, count in kept if size <= LARGEST_IN_HEAP_BYTES)
    matrix = shape.hidden * shape.feed_forward * FLOAT32_BYTES
    if matrix <= LARGEST_IN_HEAP_BYTES:
        in_heap += _weight_passes(work, tower.choice) * shape.layer * work.number_bytes
    return shape.layers * in_heap


def _weight_passes(work: Work, choice: Choice) -> float:
    if choice.zero_stage == 3:
        return WEIGHT_PASSES["partitioned"]
    return 0.0 if work.held.base_weights == "full" else WEIGHT_PASSES["quantised"]


def _logits(shape: ModelShape, work: Work, choice: Choice) -> int:
    """Logits are float32 everywhere. Classes and pairs are few, and no words."""
    tokens = choice.micro_batch * work.row_tokens(shape)
    half = tokens * shape.vocabulary * 2 if work.number_bytes == 2 else 0
    copies: float = LOGITS_AT_ONCE + SOFTCAP_LOGITS * shape.is_softcapped
    if work.family == "masked-lm":
        copies = 1 + MASKED_SHARE * copies
    elif work.family != CAUSAL:
        return 0
    return int(copies * tokens * shape.vocabulary * FLOAT32_BYTES) + half
