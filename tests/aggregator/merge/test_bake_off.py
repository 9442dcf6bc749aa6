"""What the bake-off compares is comparable, and what it writes leaves other figures alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.contenders import DEFAULT, MIXED, UNIFORM, contenders, in_fewer_rounds
from benchmarks.quality.rank_collapse import tail_energy
from benchmarks.quality.settings import Settings
from benchmarks.quality.table import mixed_rank_losses, tell_mixed_ranks
from tests.aggregator.adapter_samples import TARGETS, dense, layout_with, write_adapter

SETTINGS = Settings()


def test_no_figure_is_told_of_the_seed_on_which_rates_are_chosen() -> None:
    assert SETTINGS.tuning_seed not in SETTINGS.seeds


def test_every_entrant_takes_as_many_steps() -> None:
    entrants = (*contenders(SETTINGS), *in_fewer_rounds(SETTINGS))
    assert {SETTINGS.in_rounds(entrant.rounds).steps for entrant in entrants} == {SETTINGS.steps}
    assert len({entrant.name for entrant in entrants}) == len(entrants)
    fewer = [entrant for entrant in entrants if entrant.rounds == 2]
    assert f"{DEFAULT}_in_2_rounds" in {entrant.name for entrant in fewer}


def test_the_energy_beyond_a_rank_is_that_of_the_singular_values(tmp_path: Path) -> None:
    layout = layout_with(rank=5, alpha=5)
    adapter = write_adapter(tmp_path / "adapter", layout)
    energies = [np.linalg.svd(dense(adapter, t), compute_uv=False) ** 2 for t in TARGETS]
    expected = sum(e[2:].sum() for e in energies) / sum(e.sum() for e in energies)
    assert tail_energy(adapter, 2) == pytest.approx(expected)
    assert tail_energy(adapter, 5) == pytest.approx(0, abs=1e-12)


def test_the_losses_of_mixed_ranks_are_told_beside_the_other_figures_of_the_merge(
    tmp_path: Path,
) -> None:
    quality, merge = tmp_path / "quality.json", tmp_path / "merge.json"
    tell_mixed_ranks(quality, merge)
    assert not merge.exists()
    losses = {f"{MIXED}_dirichlet_0.1_mean": 2.9, f"{UNIFORM}_dirichlet_0.1_mean": 2.8}
    quality.write_text(json.dumps(losses | {f"{MIXED}_iid_mean": 1.0}))
    merge.write_text(json.dumps({"peer_seconds": 3, "mixed_rank_loss": 9}))
    tell_mixed_ranks(quality, merge)
    told = {"mixed_rank_loss": 2.9, "uniform_rank_loss": 2.8}
    assert mixed_rank_losses(quality) == told
    assert json.loads(merge.read_text()) == {"peer_seconds": 3} | told
