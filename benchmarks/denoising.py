"""What the draws of the family denoising do: `make bench-denoising`.

On the tests' random pipeline, in one process, about four CPU minutes. First, how like the changes
of three silos are after eight steps: with draws that follow from the plan alone, which all silos
share, and with the picture in them. Second, how far the held-out loss moves with other draws, for
several numbers of timesteps, beside what training gains.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.model_family import FamilyTask
from infra.base_model.linear_modules import linear_modules
from silo_agent.training.ranks.families.denoising import Denoising, Draws, NoisedPicture, drawn
from tests.tiny_pipelines import PLACES, make_tiny_pipeline, write_captioned

RESULTS = Path(".consortia/bench/denoising.json")
TASK = FamilyTask(family="denoising")
STEPS, BATCH, RATE, PICTURES = 8, 8, 0.01, 40
LONG, HELDOUT, REPEATS = 60, 24, 24
SCHEMES = (("1", 1, False), ("4, anywhere", 4, False), ("4, parts", 4, True), ("8, parts", 8, True))

Draw = Callable[[NoisedPicture], Draws]


@dataclass
class Given(NoisedPicture):
    """A picture whose draws are given."""

    given: Draws = field(kw_only=True)

    @property
    def draws(self) -> Draws:
        """Those."""
        return self.given


def main() -> None:
    """Measure, print the tables, write the figures."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="bench-denoising-") as name:
        bench = Bench(Path(name))
        likeness = {
            "shared": bench.likeness(lambda one: drawn(one.shape, one.origin.draw, "0" * 64)),
            "of the picture": bench.likeness(lambda one: one.draws),
        }
        spread = bench.spread()
    for words, cosines in likeness.items():
        shown = ", ".join(f"{cosine:.3f}" for cosine in cosines)
        sys.stdout.write(f"| draws {words} | {shown} |\n")
    for words, (loss, of_loss, gain, of_gain) in spread.items():
        sys.stdout.write(f"| {words} | {loss:.3f} | {of_loss:.4f} | {gain:.3f} | {of_gain:.4f} |\n")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"cosines": likeness, "spread": spread}, indent=1))


class Bench:
    """The pipeline, and what is trained on it."""

    def __init__(self, root: Path) -> None:
        import torch

        self._root, self._device = root, torch.device("cpu")
        self._model_dir = make_tiny_pipeline(root / "pipeline")
        targets = linear_modules(self._model_dir, TASK).modules
        self._layout = AdapterLayout(rank=4, alpha=6, seed=7, targets=targets)
        self._family = Denoising(TASK)
        self._family.load_beside(self._model_dir, self._device)

    def likeness(self, draw: Draw) -> list[float]:
        """Cosines of what three silos change, each with pictures of its own."""
        changes = []
        for first in (0, 100, 200):
            model = self._trained(self._sequences(first, STEPS), draw)
            changes.append(self._products(model))
        pairs = ((0, 1), (0, 2), (1, 2))
        lengths = [float(np.linalg.norm(each)) for each in changes]
        return [float(changes[a] @ changes[b]) / lengths[a] / lengths[b] for a, b in pairs]

    def spread(self) -> dict[str, tuple[float, float, float, float]]:
        """Held-out loss and what training gained, each with its deviation over draws."""
        heldout = self._sequences(1000, HELDOUT // BATCH, count=HELDOUT)
        models = [self._trained([], lambda one: one.draws)]
        models.append(self._trained(self._sequences(0, LONG), lambda one: one.draws))
        found = {}
        for words, count, in_parts in SCHEMES:
            start, end = (self._losses(model, heldout, count, in_parts) for model in models)
            gain = start - end
            found[words] = tuple(map(float, (end.mean(), end.std(), gain.mean(), gain.std())))
        return found  # type: ignore[return-value]

    def _losses(
        self, model: Any, heldout: Sequence[NoisedPicture], count: int, in_parts: bool
    ) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """The mean loss of the held-out pictures, for each of several draws."""
        import torch

        means = []
        for repeat in range(REPEATS):
            rng = np.random.default_rng([repeat, count, in_parts])
            total = 0.0
            for one in heldout:
                drawn_at = rng.random(count)
                within = (np.arange(count) + drawn_at) / count if in_parts else drawn_at
                latent = (count, one.shape.channels, one.shape.latent_side, one.shape.latent_side)
                timesteps = (within * one.shape.timesteps).astype(np.int64)
                noise = rng.standard_normal(latent, dtype=np.float32)
                given = _given(one, Draws(timesteps, noise))
                with torch.no_grad():
                    total += self._family.measured(model, given, self._device).item()
            means.append(total / len(heldout))
        return np.array(means)

    def _sequences(self, first: int, steps: int, count: int = PICTURES) -> list[NoisedPicture]:
        from silo_agent.training.ranks.base_model import load_tokenizer
        from silo_agent.training.ranks.families.family import Telling
        from silo_agent.training.ranks.packing import PackingRule, pack_training
        from silo_agent.training.ranks.shard_cache import ShardCache

        def tokenizer() -> Any:
            return load_tokenizer(self._model_dir)

        records = write_captioned(self._root / f"records-{first}.jsonl", count, first)
        telling = Telling(self._model_dir, "2026-01-01", PLACES)
        cache = ShardCache(self._root / "shards", self._family, telling, load_tokenizer)
        shown = self._family.shown(tokenizer, self._model_dir)
        rule = PackingRule(PLACES, together=False, context=PLACES, shown=shown)
        wanted = steps * BATCH
        found, _ = pack_training(cache.of(records), rule, count=wanted, seed=3, round_number=1)
        return list(found)  # type: ignore[arg-type]

    def _trained(self, sequences: Sequence[NoisedPicture], draw: Draw) -> Any:
        import torch

        from silo_agent.training.ranks.lora_model import (
            load_lora_model,
            set_adapter,
            trained_parameters,
        )
        from silo_agent.training.ranks.starting_tensors import starting_tensors

        model = load_lora_model(self._model_dir, self._layout, "cpu", task=TASK)
        set_adapter(model, starting_tensors(self._layout, None))
        parameters = list(trained_parameters(model).values())
        optimizer = torch.optim.AdamW(parameters, lr=RATE)
        for start in range(0, len(sequences), BATCH):
            batch = [_given(one, draw(one)) for one in sequences[start : start + BATCH]]
            optimizer.zero_grad()
            loss = self._family.batch_loss(model, batch, self._device) / BATCH
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        return model.eval()

    def _products(self, model: Any) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """B A of all modules, one behind the other; all silos start at a B of zero."""
        from silo_agent.training.ranks.lora_model import adapter_parameters

        tensors = {n: p.detach().double().numpy() for n, p in adapter_parameters(model).items()}
        names = [f"base_model.model.{target.module}" for target in self._layout.targets]
        products = (tensors[f"{n}.lora_B.weight"] @ tensors[f"{n}.lora_A.weight"] for n in names)
        return np.concatenate([product.ravel() for product in products])


def _given(one: NoisedPicture, draws: Draws) -> Given:
    return Given(
        one.token_ids,
        one.labels,
        one.positions,
        origin=one.origin,
        shape=one.shape,
        padded_ids=one.padded_ids,
        given=draws,
    )


if __name__ == "__main__":
    main()
