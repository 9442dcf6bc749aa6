"""Denoising (Stable Diffusion): the noise in a picture's latents, told its caption.

The loss of a picture is the mean squared error of the noise that the UNet predicts (Ho et al. 2020,
equation 14), the mean over the numbers of a latent, so that a record counts 1 whatever its size.

Noise and timestep follow from (seed, round, number of the sequence, place in it) and the bytes of
the picture, whatever rank has the sequence. Without the picture all silos would draw the same noise
in the same step: their errors would not average out, and their adapters look like copies of each
other (docs/families/denoising.md). In training one is drawn, of all timesteps alike. Of a held-out
record there are several that are the same in all rounds, one from each of as many equal parts of
the schedule: the loss differs between timesteps far more than between adapters.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records.model_family import FamilyTask
from infra.base_model.pipeline_check import PipelineShape, pipeline_shape
from silo_agent.training.ranks.conversation import IGNORED, ChatTokenizer
from silo_agent.training.ranks.families.captions import Captions
from silo_agent.training.ranks.families.family import Family, FamilyEncoder, Telling
from silo_agent.training.ranks.families.pictured import pictures_of, records_of
from silo_agent.training.ranks.packed_sequence import Origin, PackedSequence, Shown
from silo_agent.training.ranks.packing_check import are_kept_apart
from silo_agent.training.ranks.plain_text import around, closed
from silo_agent.training.ranks.unet_model import Beside, load_beside, load_unet, recompute_unet

HELDOUT_ROUND = 0
"""Stands in the place of a round for records that are held out (`packing.pack_heldout`)."""

HELDOUT_DRAWS = 4
"""Timesteps of a held-out picture."""


@dataclass(frozen=True)
class Draws:
    """What is drawn for a picture: `timesteps` int64 (draws,), and for each noise, float32 (draws x
    channels x latent side x latent side)."""

    timesteps: NDArray[np.int64]
    noise: NDArray[np.float32]


@dataclass
class NoisedPicture(PackedSequence):
    """A caption, and where its picture is; the picture is opened when somebody asks for it, which
    only the rank does that trains on it. `padded_ids` as the text encoder takes them."""

    origin: Origin = field(kw_only=True)
    shape: PipelineShape = field(kw_only=True)
    padded_ids: tuple[int, ...] = field(kw_only=True)

    @property
    def picture(self) -> NDArray[np.uint8]:
        """Of the one record (side x side x 3)."""
        found: NDArray[np.uint8] = pictures_of(self.origin, self.shape.side)[0]
        return found

    @property
    def draws(self) -> Draws:
        """One in training, several of a held-out record."""
        (record,) = records_of(self.origin)
        return drawn(self.shape, self.origin.draw, record.sha256)


class Denoising(Family):
    """Pictures with captions, one a sequence; the adapter sits on the UNet."""

    name = "denoising"
    packs = False

    def __init__(self, task: FamilyTask) -> None:
        super().__init__(task)
        self._loaded: Beside | None = None

    def encoder(self, tokenizer: ChatTokenizer, telling: Telling) -> FamilyEncoder:
        """Captions, as the tokenizer begins and ends a text."""
        return _Captions(tokenizer)

    def shown(self, tokenizer: Callable[[], ChatTokenizer], model_dir: Path) -> Shown | None:
        """The caption with its picture; raises FederationOperatorError without a padding token."""
        found: Any = tokenizer()
        if found.pad_token_id is None:
            raise FederationOperatorError(
                "base model of the plan",
                expected="a tokenizer with a padding token, for the family denoising",
                found="none",
                action="begin a run with a pipeline that has all files of its tokenizer",
            )
        _, end = around(found)
        shape = pipeline_shape(model_dir)
        return partial(noised, shape=shape, end=end, padding=found.pad_token_id)

    def load_beside(self, model_dir: Path, device: torch.device) -> None:
        """Autoencoder and text encoder."""
        self._loaded = load_beside(model_dir, device)

    def load_base(self, model_dir: Path, whole: Collection[str], **options: Any) -> Any:
        """The UNet."""
        return load_unet(model_dir, **options)

    def recompute(self, model: Any, *, partitioned: bool) -> None:
        """As diffusers does it."""
        recompute_unet(model.get_base_model(), partitioned=partitioned)

    def batch_loss(
        self, model: Any, sequences: Sequence[PackedSequence], device: torch.device
    ) -> torch.Tensor:
        """Squared error of the noise, summed over the pictures."""
        return self._errors(model, sequences, device).sum()

    def measured(self, model: Any, sequence: PackedSequence, device: torch.device) -> torch.Tensor:
        """Squared error of the noise of the one picture, the mean over its timesteps."""
        return self._errors(model, [sequence], device).double()[:, None]

    def may_batch(self, model: Any, device: torch.device, *, together: bool) -> bool:
        """Whether the noise that is predicted of a picture depends on those beside it."""
        with torch.no_grad():
            company, others, alone = (
                _of_made_up(model, numbers, device)[0].flatten()
                for numbers in ((0, 1), (0, 2), (0,))
            )
        return are_kept_apart(company, others, alone)

    def _errors(
        self, model: Any, sequences: Sequence[PackedSequence], device: torch.device
    ) -> torch.Tensor:
        """Of each picture the mean over its latent's numbers and its timesteps (pictures,)."""
        beside = self._beside
        pictures = [each for each in sequences if isinstance(each, NoisedPicture)]
        draws = [each.draws for each in pictures]
        counts = [len(each.timesteps) for each in draws]
        repeats = torch.tensor(counts, device=device)
        pixels = torch.from_numpy(np.stack([each.picture for each in pictures]))
        latents = beside.latents(pixels.to(device)).repeat_interleave(repeats, dim=0)
        states = beside.states(*_padded(pictures, device)).repeat_interleave(repeats, dim=0)
        noise = torch.from_numpy(np.concatenate([each.noise for each in draws])).to(device)
        timesteps = torch.from_numpy(np.concatenate([d.timesteps for d in draws])).to(device)
        noisy = beside.noised(latents, noise, timesteps)
        found = _predicted(model, noisy, timesteps, states)
        errors = (found.float() - noise).square().mean(dim=(1, 2, 3))
        parts = errors.tensor_split(list(accumulate(counts))[:-1])
        return torch.stack([part.mean() for part in parts])

    @property
    def _beside(self) -> Beside:
        if self._loaded is None:
            raise ValueError("nothing was loaded beside the model")
        return self._loaded


def drawn(shape: PipelineShape, draw: tuple[int, int, int], digest: str, place: int = 0) -> Draws:
    """What is drawn for the picture of this SHA-256, in hexadecimal, at a `place` of a sequence, by
    seed, round and the sequence's number."""
    seed, round_number, index = draw
    of_picture = [int(digest[start : start + 8], 16) for start in range(0, len(digest), 8)]
    words = [seed & 0xFFFFFFFF, seed >> 32, round_number, index, place, *of_picture]
    rng = np.random.Generator(np.random.PCG64(words))
    count = HELDOUT_DRAWS if round_number == HELDOUT_ROUND else 1
    within = (np.arange(count) + rng.random(count)) / count
    latent = (count, shape.channels, shape.latent_side, shape.latent_side)
    noise = rng.standard_normal(latent, dtype=np.float32)
    return Draws((within * shape.timesteps).astype(np.int64), noise)


def noised(
    sequence: PackedSequence, origin: Origin, *, shape: PipelineShape, end: list[int], padding: int
) -> NoisedPicture:
    """The caption of a sequence, padded as the pipeline pads it; its end stays where it is cut. The
    picture is one thing that is asked."""
    ids = closed(sequence.token_ids[: shape.tokens], end)
    labels = [ids[0], *[IGNORED] * (len(ids) - 1)]
    padded = (*ids, *[padding] * (shape.tokens - len(ids)))
    return NoisedPicture(
        ids, labels, list(range(len(ids))), origin=origin, shape=shape, padded_ids=padded
    )


class _Captions(Captions):
    family = "denoising"


def _padded(
    pictures: Sequence[NoisedPicture], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask (pictures x tokens)."""
    ids = torch.tensor([each.padded_ids for each in pictures], device=device)
    lengths = torch.tensor([[len(each.token_ids)] for each in pictures], device=device)
    return ids, (torch.arange(ids.shape[1], device=device) < lengths).long()


def _predicted(
    model: Any, noisy: torch.Tensor, timesteps: torch.Tensor, states: torch.Tensor
) -> torch.Tensor:
    """The noise in latents, in the precision of the UNet."""
    precision = getattr(model, "module", model).get_base_model().dtype
    found: torch.Tensor = model(
        noisy.to(precision), timesteps, encoder_hidden_states=states.to(precision)
    ).sample
    return found


def _of_made_up(model: Any, numbers: Sequence[int], device: torch.device) -> torch.Tensor:
    """What is predicted of made-up latents and captions, side by side; always the same ones: the
    answer must not depend on anybody's records."""
    config = getattr(model, "module", model).get_base_model().config
    side, width = config.sample_size, config.cross_attention_dim
    drawn_for = [np.random.Generator(np.random.PCG64(number)) for number in numbers]
    latents = [rng.standard_normal((config.in_channels, side, side)) for rng in drawn_for]
    states = [rng.standard_normal((8, width)) for rng in drawn_for]
    timesteps = torch.tensor([100 + 200 * number for number in numbers], device=device)
    noisy, told = (torch.from_numpy(np.stack(each)).to(device) for each in (latents, states))
    return _predicted(model, noisy, timesteps, told)
