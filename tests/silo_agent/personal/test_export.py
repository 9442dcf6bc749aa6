"""An exported personal adapter in plain PEFT: the losses are those that the agent measured."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from data_contracts.dataset.forms import FORMS
from data_contracts.dataset.forms.lines import read_lines
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.round_plan import ANY_DAY
from silo_agent.cli import app
from silo_agent.personal.export import export_personal
from silo_agent.personal.kept import PersonalAdapter, PersonalAdapters, PersonalFacts
from silo_agent.training.job import TrainingJob
from tests.silo_agent.personal.opposite_clusters import METHODS, OppositeClusters
from tests.silo_agent.training.shared_ranks import finished
from tests.silo_agent.training.tiny_jobs import conversations

BASE = BaseModelRef(name="tiny-llama", digest="0" * 64, licence="Apache-2.0")
CONFIG = """
silo = "north"
federation = "demo"

[storage]
endpoint_url = "http://127.0.0.1:1"
"""


def kept(home: Path, job: TrainingJob, method: str) -> PersonalAdapter:
    """What a job has trained, kept as the agent keeps it."""
    result, beside = finished(job), job.starting_residual
    assert result.personal is not None
    facts = PersonalFacts.model_validate(
        {
            "method": method,
            "federation": "demo",
            "run": "run-1",
            "round": 2,
            "attempt": 1,
            "base_model": BASE,
            "prompt_date": ANY_DAY,
            "precision": job.precision,
            "issued_at": "2026-01-01T00:00:00Z",
            "layout": job.layout,
            "beside_layout": job.residual_layout,
            "digest": artifact_of_file(result.adapter).digest,
            "beside_digest": artifact_of_file(beside).digest if beside else None,
            "global_digest": None,
            "steps": result.steps,
            "tokens": result.tokens,
            "heldout_digest": artifact_of_file(job.heldout_records).digest,
            "heldout_sequences": job.heldout_sequences,
            "measures": result.personal,
        }
    )
    adapters = PersonalAdapters(home, "run-1")
    adapters.keep(facts, result.adapter, beside)
    found = adapters.of_round(2)
    assert found is not None
    return found


def code_of(readme: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)


def loaded(folder: Path, base_folder: Path) -> dict[str, Any]:
    """The names that the code of the folder's own README makes."""
    names: dict[str, Any] = {"folder": str(folder), "base_folder": str(base_folder)}
    for code in code_of(folder / "README.md"):
        exec(code, names)  # noqa: S102 - the page that is tested
    return names


def nats(model: Any, ids: list[int], labels: list[int]) -> tuple[float, int]:
    tokens = sum(label != -100 for label in labels)
    with torch.no_grad():
        found = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss.item()
    return found * tokens, tokens


@pytest.mark.parametrize("method", METHODS)
def test_plain_peft_measures_what_the_agent_measured(
    clusters: OppositeClusters, tmp_path: Path, method: str
) -> None:
    job = clusters.personal[method][0]
    adapter = kept(tmp_path / "home", job, method)
    folder = tmp_path / "own"
    export_personal(adapter, folder)
    names = loaded(folder, clusters.model_dir)
    model, made, sums, chosen = names["model"], conversations(clusters.model_dir), [], 0
    for (prompt, answer), _ in read_lines(job.heldout_records, FORMS["instruction"]):
        turn = made.of(prompt, answer)
        if method == "dual":
            first = next(n for n, label in enumerate(turn.labels) if label != -100)
            is_own = names["is_own"](torch.tensor([turn.token_ids[:first]]))
            model.set_adapter("default" if is_own else "global")
            chosen += is_own
        sums.append(nats(model, turn.token_ids, turn.labels))
    measures = adapter.facts.measures
    mean = sum(n for n, _ in sums) / sum(t for _, t in sums)
    assert mean == pytest.approx(measures.used.nats, abs=2e-4)
    if method == "dual":
        assert chosen / len(sums) == measures.chosen_for
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["r"] == (8 if method == "dual" else 4)
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*"))


def test_a_folder_with_other_things_is_left_alone(
    clusters: OppositeClusters, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "silo-agent.toml").write_text(CONFIG)
    run = CliRunner().invoke
    none = run(app, ["export", "--personal", str(tmp_path / "own"), "--home", str(home)])
    assert "none yet" in str(none.exception) and not (tmp_path / "own").exists()
    kept(home, clusters.personal["ditto"][0], "ditto")
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter.txt").write_text("mine")
    refused = run(app, ["export", "--personal", str(full), "--home", str(home)])
    assert "letter.txt" in str(refused.exception)
    assert [path.name for path in full.iterdir()] == ["letter.txt"]
    inside = run(app, ["export", "--personal", str(home / "x"), "--home", str(home)])
    assert "outside of the agent's home" in str(inside.exception)
    (tmp_path / "empty").mkdir()
    done = run(app, ["export", "--personal", str(tmp_path / "empty"), "--home", str(home)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "empty" / "adapter_model.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full", "home"]


def test_a_file_that_is_no_longer_the_measured_one_is_not_exported(
    clusters: OppositeClusters, tmp_path: Path
) -> None:
    adapter = kept(tmp_path / "home", clusters.personal["dual"][0], "dual")
    assert adapter.beside is not None
    other = finished(clusters.personal["ditto"][0]).adapter.read_bytes()
    adapter.beside.unlink()
    adapter.beside.write_bytes(other)
    with pytest.raises(Exception, match="the file that was measured"):
        export_personal(adapter, tmp_path / "own")
    assert not (tmp_path / "own").exists()
