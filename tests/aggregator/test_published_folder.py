"""The published folder after whole rounds, as a model user finds and uses it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from aggregator.evidence.look import look
from aggregator.federated_round import finish_latest_report, report_round
from aggregator.settings.federation import BaseModelSection, PublicationSection
from aggregator.settings.merge import MergeSection
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from infra.disk.durable_files import write_durably
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

pytestmark = pytest.mark.long

HUB_ID, COMMIT = "an-organisation/tiny", "0123456789abcdef0123456789abcdef01234567"
HONEST = {"a": Behaviour.HONEST, "b": Behaviour.HONEST}
FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors"]

ROOT = Path(__file__).parents[2]
CHECK = """
import torch
plain = AutoModelForCausalLM.from_pretrained(LOCAL)
with torch.no_grad():
    found, at_once, without = (m(**inputs).logits for m in (model, automatic, plain))
assert float((found - without).abs().max()) > 0
assert torch.equal(found, at_once) != HAS_RESIDUAL
assert text == "<|im_start|>user\\nWhat is due?<|im_end|>\\n<|im_start|>assistant\\n"
print("used")
"""


def with_base_model(federation: SimulatedFederation, **fields: str) -> None:
    """What the federation's settings say of the base model from now on."""
    base = federation.settings.base_model
    changed = BaseModelSection.model_validate(dict(base) | fields)
    federation.settings = federation.settings.model_copy(update={"base_model": changed})


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def hub_cache(home: Path, model: Path) -> None:
    """The files of a model where huggingface_hub keeps what it has downloaded."""
    repository = home / "hub" / f"models--{HUB_ID.replace('/', '--')}"
    shutil.copytree(model, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)


def python_blocks(page: str) -> list[str]:
    """The code that a page tells its reader to run, in order."""
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def use_as_told(page: str, home: Path, model: Path, cache: Path) -> str:
    """Run a page's code beside the published folder, without a network; the base model is found
    in the hub's cache, and in the folder `model`."""
    first, *others = python_blocks(page)
    has_residual = (home / "published" / "residual").exists()
    code = "\n".join(
        [
            f"LOCAL, HAS_RESIDUAL, prompt = {str(model)!r}, {has_residual}, 'What is due?'",
            f"{first}\nautomatic = model",
            *(block for block in others if has_residual or "residual" not in block),
            CHECK,
        ]
    )
    code = code.replace("organisation/name", HUB_ID).replace(
        "/folder/of/the/base/model", str(model)
    )
    hub_cache(cache, model)
    offline = {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=home,
        env=os.environ | offline,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 else done.stderr


def test_what_the_card_tells_its_reader_works(
    make_federation: MakeFederation, tmp_path: Path, tiny_model: Path
) -> None:
    federation = make_federation({}, **HONEST)
    with_base_model(federation, hub_id=HUB_ID, hub_revision=COMMIT)
    federation.play(federation.open())
    folder = federation.coordinator().published
    card = (folder / "README.md").read_text()
    assert len(python_blocks(card)) == 3
    assert use_as_told(card, folder.parent, tiny_model, tmp_path / "hf") == "used"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (HUB_ID, COMMIT)


def test_what_the_page_for_model_users_says_works(
    make_federation: MakeFederation, tmp_path: Path, tiny_model: Path
) -> None:
    rule = MergeSection(rule="residual", residual_rank=4)
    federation = make_federation({"merge": rule}, **HONEST)
    with_base_model(federation, hub_id=HUB_ID)
    federation.play(federation.open())
    folder = federation.coordinator().published
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (HUB_ID, None)
    page = (ROOT / "docs" / "published-adapter.md").read_text()
    assert len(python_blocks(page)) == 4
    assert use_as_told(page, folder.parent, tiny_model, tmp_path / "hf") == "used"


def test_the_operators_settings_on_that_page_are_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "published-adapter.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    fields = tomllib.loads(block)
    base = {"licence": "Apache-2.0", "path": tmp_path}
    assert BaseModelSection.model_validate(fields["base_model"] | base).hub_id is not None
    assert not PublicationSection.model_validate(fields["publication"]).name_silos


def test_the_folder_holds_adapter_and_card(
    make_federation: MakeFederation, tiny_model: Path
) -> None:
    federation = make_federation({}, **HONEST)
    federation.play(federation.open())
    c = federation.coordinator()
    found = contents(c.published)
    assert list(found) == FILES
    card = ModelCard.load(c.published / "README.md", ignore_metadata_errors=False)
    assert card.data.to_dict()["license"] == "apache-2.0"
    assert artifact_of_file(c.published / "adapter_model.safetensors").digest in card.text
    assert "<|im_start|>user\nTHE PROMPT<|im_end|>\n<|im_start|>assistant\nTHE ANSWER" in card.text
    for path in (tiny_model, federation.settings.home, Path.home()):
        assert not [name for name, data in found.items() if str(path).encode() in data]
    assert "silo-b" not in card.text


def test_a_held_round_leaves_the_folder_of_the_one_before(make_federation: MakeFederation) -> None:
    federation = make_federation({}, **HONEST, c=Behaviour.HONEST)
    federation.play(federation.open(1))
    folder = federation.coordinator().published
    before = contents(folder)
    for silo in federation.silos.values():
        silo.behaviour = Behaviour.UNHAPPY
    second = federation.open(2)
    federation.play(second)
    report, _ = report_round(federation.coordinator(), federation.look(second))
    assert report.record.outcome == "held"
    assert contents(folder) == before
    assert b"# Adapter of round 1," in before["README.md"]


def test_nothing_is_there_while_nothing_was_published(make_federation: MakeFederation) -> None:
    federation = make_federation({}, a=Behaviour.UNHAPPY, b=Behaviour.UNHAPPY)
    first = federation.open(1)
    federation.play(first)
    report, _ = report_round(federation.coordinator(), federation.look(first))
    assert report.record.outcome == "held"
    assert not federation.coordinator().published.exists()


def test_a_later_round_replaces_all_of_it(make_federation: MakeFederation) -> None:
    federation = make_federation({}, **HONEST)
    federation.play(federation.open(1))
    folder = federation.coordinator().published
    first = contents(folder)
    (folder / "notes.txt").write_text("somebody's own")
    federation.play(federation.open(2))
    second = contents(folder)
    assert list(second) == FILES
    assert all(second[name] != first[name] for name in ("README.md", FILES[-1]))
    assert b"It goes on from the adapter" in second["README.md"]


def test_a_coordinator_that_comes_back_writes_the_same_bytes(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation({}, **HONEST)
    federation.play(federation.open())
    c = federation.coordinator()
    before = contents(c.published)
    shutil.rmtree(c.published)
    with_base_model(federation, name="another name", licence="MIT", hub_id=HUB_ID)
    finish_latest_report(federation.coordinator())
    assert contents(c.published) == before, "what counts is the plan, not what settings say now"
    shutil.rmtree(c.published)
    shutil.rmtree(c.reports)
    shutil.rmtree(c.workspace)
    finish_latest_report(federation.coordinator())
    assert contents(c.published) == before


def test_a_residual_lies_in_the_same_folder(make_federation: MakeFederation) -> None:
    rule = MergeSection(rule="residual", residual_rank=4)
    federation = make_federation({"merge": rule}, **HONEST)
    former = federation.settings.home / "published-residual"
    write_durably(former / "adapter_config.json", b"{}")
    federation.play(federation.open())
    found = contents(federation.coordinator().published)
    assert sorted(found) == [
        *FILES,
        "residual/adapter_config.json",
        "residual/adapter_model.safetensors",
    ]
    assert json.loads(found["residual/adapter_config.json"])["r"] == 4
    assert b'load_adapter("published/residual"' in found["README.md"]
    assert not former.exists()


def test_a_silo_that_may_not_be_named_refuses(make_federation: MakeFederation) -> None:
    federation = make_federation({}, **HONEST, c=Behaviour.HONEST)
    naming = PublicationSection(name_silos=True)
    federation.settings = federation.settings.model_copy(update={"publication": naming})
    for name in ("silo-a", "silo-b"):
        path = federation.silos[name].home / "policy.toml"
        write_durably(path, f"may_be_named = true\n{path.read_text()}".encode())
    plan = federation.open()
    federation.play(plan)
    c = federation.coordinator()
    report, _ = report_round(c, look(c, plan))
    assert {silo.silo: silo.rule for silo in report.record.silos}["silo-c"] == "policy.named"
    card = (c.published / "README.md").read_text()
    assert "those that contributed are named: silo-a, silo-b." in card
    assert "silo-c" not in card


@pytest.mark.parametrize("name", ["/models/tiny", "~/tiny", "./tiny", "C:\\models\\tiny"])
def test_a_path_is_no_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="where the model lies belongs in path"):
        BaseModelSection(name=name, licence="MIT", path=tmp_path)


@pytest.mark.parametrize(
    ("hub_id", "revision", "fault"),
    [
        ("/models/tiny", None, "hub_id"),
        ("tiny", None, "hub_id"),
        ("a/b/c", None, "hub_id"),
        ("../up", None, "hub_id"),
        (HUB_ID, "main", "hub_revision"),
        (None, COMMIT, "hub_revision goes with a hub_id"),
    ],
)
def test_where_the_model_can_be_had_is_a_repository_and_a_commit(
    hub_id: str | None, revision: str | None, fault: str, tmp_path: Path
) -> None:
    place = {"hub_id": hub_id, "hub_revision": revision}
    with pytest.raises(ValueError, match=fault):
        BaseModelSection.model_validate({"name": "a", "licence": "MIT", "path": tmp_path} | place)
    with pytest.raises(ValueError, match=fault):
        BaseModelRef.model_validate({"name": "a", "licence": "MIT", "digest": "0" * 64} | place)
