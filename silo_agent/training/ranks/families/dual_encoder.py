"""Dual encoders (CLIP): a picture and its caption belong together, in nats for each pair.

The loss is the mean of two cross entropies: which caption of a batch is a picture's, and which
picture is a caption's (Radford et al. 2021, figure 3). A batch is all pairs of one step, over all
ranks and micro-batches: first every pair is embedded without gradients, the embeddings are
exchanged, and the gradient of the whole batch's loss for each embedding is taken; then micro-batch
after micro-batch is embedded again and that gradient goes on into the model (GradCache, Gao et al.
2021, arXiv:2101.06983). It is the gradient of the batch, however it is cut up.

Held-out pairs are told apart in blocks that do not depend on ranks, so that losses compare.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from infra.base_model.picture_input import PictureInput, picture_input
from silo_agent.training.ranks.base_model import together
from silo_agent.training.ranks.conversation import IGNORED, ChatTokenizer
from silo_agent.training.ranks.families.captions import Captions
from silo_agent.training.ranks.families.encoder_rows import padded_rows
from silo_agent.training.ranks.families.family import (
    Family,
    FamilyEncoder,
    Scores,
    SummedLoss,
    Telling,
)
from silo_agent.training.ranks.families.pictured import pictures_of
from silo_agent.training.ranks.packed_sequence import (
    Origin,
    PackedSequence,
    Shown,
    micro_batches,
)
from silo_agent.training.ranks.packing_check import are_kept_apart
from silo_agent.training.ranks.plain_text import around, closed

BLOCK = 32
"""Held-out pairs that are told apart from each other, at least, where there are so many."""


class DualEncoder(Family):
    """A picture and its caption, one pair a sequence."""

    name = "dual-encoder"
    packs = False

    def encoder(self, tokenizer: ChatTokenizer, telling: Telling) -> FamilyEncoder:
        """Captions, as the tokenizer begins and ends a text."""
        return _Captions(tokenizer)

    def shown(self, tokenizer: Callable[[], ChatTokenizer], model_dir: Path) -> Shown | None:
        """The caption with its picture."""
        _, end = around(tokenizer())
        return partial(asked_for_pair, end=end, taken=picture_input(model_dir))

    def step_loss(
        self, model: Any, own: Sequence[PackedSequence], size: int, device: torch.device
    ) -> SummedLoss:
        """By the gradients of the whole batch for the embeddings of this rank's pairs."""
        drawn = torch.get_rng_state()
        with torch.no_grad():
            batches = list(micro_batches(own, size))
            embedded = torch.cat([self._embedded(model, batch, device) for batch in batches])
        # Dropout draws the same again when they are embedded with gradients.
        torch.set_rng_state(drawn)
        losses, gradients = _of_batch(embedded, _scale_of(model), len(own))
        places = {id(one): place for place, one in enumerate(chain(*batches))}

        def loss(sequences: Sequence[PackedSequence]) -> torch.Tensor:
            rows = [places[id(sequence)] for sequence in sequences]
            again = self._embedded(model, sequences, device)
            handed_on = (again * gradients[rows]).sum()
            # Its gradient is that of the batch, and its value the loss of these pairs.
            return handed_on + (losses[rows].sum() - handed_on).detach()

        return loss

    def batch_loss(
        self, model: Any, sequences: Sequence[PackedSequence], device: torch.device
    ) -> torch.Tensor:
        """Of pairs that are a batch of their own."""
        embedded = self._embedded(model, sequences, device)
        return pair_losses(embedded, _scale_of(model)).sum()

    def measured(self, model: Any, sequence: PackedSequence, device: torch.device) -> torch.Tensor:
        """The pair's embeddings, and the scale of their products."""
        embedded = self._embedded(model, [sequence], device).flatten(1)
        scale = _scale_of(model).to(embedded).reshape(1, 1)
        return torch.cat([embedded, scale], dim=1).double()

    def scores(self, measured: torch.Tensor) -> Scores:
        """Each pair against the others of its block; right where a picture's own caption is the
        nearest (recall@1)."""
        embedded, scale = measured[:, :-1].reshape(len(measured), 2, -1), measured[0, -1]
        losses, right = list[torch.Tensor](), list[torch.Tensor]()
        for block in embedded.tensor_split(max(1, len(embedded) // BLOCK)):
            losses.append(pair_losses(block, scale))
            nearest = (block[:, 0] @ block[:, 1].T).argmax(dim=1)
            right.append((nearest == torch.arange(len(block), device=block.device)).double())
        return Scores(torch.cat(losses), torch.cat(right))

    def may_batch(self, model: Any, device: torch.device, *, together: bool) -> bool:
        """Whether a pair's embeddings do not depend on the others beside it."""
        side = _base(model).config.vision_config.image_size
        with torch.no_grad():
            company, others, alone = (
                _embedded(model, *_made_up(numbers, side), device)[0]
                for numbers in ((0, 1), (0, 2), (0,))
            )
        return are_kept_apart(company, others, alone)

    def _embedded(
        self, model: Any, sequences: Sequence[PackedSequence], device: torch.device
    ) -> torch.Tensor:
        pairs = [each for each in sequences if isinstance(each, Pair)]
        return _embedded(model, pairs, np.concatenate([each.pixels for each in pairs]), device)


def pair_losses(embedded: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Of each pair, against all others, the mean of both cross entropies (pairs,)."""
    products = scale * embedded[:, 0] @ embedded[:, 1].T
    own = torch.arange(len(embedded), device=embedded.device)
    both = (
        torch.nn.functional.cross_entropy(logits, own, reduction="none")
        for logits in (products, products.T)
    )
    return sum(both, torch.zeros(len(embedded), device=embedded.device)) / 2


@dataclass
class Pair(PackedSequence):
    """A caption, and where its picture is, which only the rank opens that embeds it."""

    origin: Origin = field(kw_only=True)
    taken: PictureInput = field(kw_only=True)

    @cached_property
    def pixels(self) -> NDArray[np.float32]:
        """The picture as the model takes it (1 x 3 x side x side); it is embedded twice in a step,
        and opened once."""
        shown = pictures_of(self.origin, self.taken.side).astype(np.float32) / 255
        colours = (self.taken.mean, self.taken.deviation)
        mean, deviation = (np.array(each, np.float32) for each in colours)
        values = ((shown - mean) / deviation).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(values, dtype=np.float32)


def asked_for_pair(
    sequence: PackedSequence, origin: Origin, *, end: list[int], taken: PictureInput
) -> Pair:
    """The caption with its picture; one thing is asked of a pair, and nothing is drawn."""
    ids = closed(sequence.token_ids, end)
    labels = [0, *[IGNORED] * (len(ids) - 1)]
    return Pair(ids, labels, sequence.positions, origin=origin, taken=taken)


class _Captions(Captions):
    family = "dual-encoder"


def _of_batch(
    own: torch.Tensor, scale: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of this rank's pairs among those of all ranks, and the gradients of the whole batch's
    summed loss for their embeddings."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    of_all = [torch.empty_like(own) for _ in range(ranks)]
    dist.all_gather(of_all, own.contiguous())
    batch = torch.cat(of_all).requires_grad_()
    losses = pair_losses(batch, scale)
    (gradients,) = torch.autograd.grad(losses.sum(), batch)
    mine = slice(rank * count, (rank + 1) * count)
    return losses[mine].detach(), gradients[mine]


def _embedded(
    model: Any,
    captions: Sequence[PackedSequence],
    pixels: NDArray[np.float32],
    device: torch.device,
) -> torch.Tensor:
    """Of each pair the picture's and the caption's embedding, of norm 1 (pairs x 2 x width)."""
    base = _base(model)
    ids, mask = padded_rows(captions, base.config.text_config.pad_token_id)
    found = model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        pixel_values=torch.from_numpy(pixels).to(device, base.dtype),
    )
    return torch.stack([found.image_embeds, found.text_embeds], dim=1).float()


def _base(model: Any) -> Any:
    return getattr(model, "module", model).get_base_model()


def _scale_of(model: Any) -> torch.Tensor:
    """What products of embeddings are multiplied with; no part of what is trained."""
    parameter = _base(model).logit_scale
    with together([parameter]):
        scale: torch.Tensor = parameter.detach().float().exp().clone()
    return scale


def _made_up(numbers: Sequence[int], side: int) -> tuple[list[PackedSequence], NDArray[np.float32]]:
    """Captions and pixels, always the same: the answer must not depend on anybody's records."""
    captions, pixels = list[PackedSequence](), list[NDArray[np.float32]]()
    for number in numbers:
        rng = np.random.Generator(np.random.PCG64(number))
        ids = rng.integers(3, 8, size=5 + 3 * number).tolist()
        captions.append(PackedSequence(ids, ids, list(range(len(ids)))))
        pixels.append(rng.standard_normal((1, 3, side, side), dtype=np.float32))
    return captions, np.concatenate(pixels)
