"""Silos that share A and keep B, in simulated rounds: what is exchanged, what is kept, what never
leaves."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, load_file
from typer.testing import CliRunner

from aggregator.audit.report_audit import audit
from aggregator.evidence.reader import read_attempt
from aggregator.evidence.spool import spool
from aggregator.feed.reading import read_federation
from aggregator.report.files import read_report_file
from aggregator.settings.merge import MergeSection
from aggregator.steps.merging import merge_inputs
from data_contracts.adapters.adapter_format import lora_a_name, lora_b_name, open_adapter
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from flows.round.contribution import PublicSet, contributions
from silo_agent.cli import app
from silo_agent.config import DiskSection
from silo_agent.home.backup import back_up_silo, kept_files, restore_silo
from silo_agent.home.disk_pruning import SiloDisk, prune_home
from silo_agent.home.disk_rule import SeenRounds
from silo_agent.personal.own_factors import OWN_FACTORS, OwnFactors, newest_own
from silo_agent.personal_settings import PersonalSection
from silo_agent.training.run_files import RunFiles
from silo_agent.watching.agent_view import said_lines, view_agent
from tests.aggregator.test_heads_in_rounds import opened_with_heads
from tests.simulator.disk import files_below, names_in, play_rounds
from tests.simulator.federation import FEDERATION, RUN, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour, SimulatedSilo

SHARED_A = MergeSection(rule="shared_a", compression="none")
HONEST = dict.fromkeys("abc", Behaviour.HONEST)


def b_of(silo: SimulatedSilo, number: int) -> dict[str, np.ndarray]:
    return load_file(silo.home / OWN_FACTORS / RUN / f"round-{number:04d}.b.safetensors")


def trained_in(silo: SimulatedSilo, number: int) -> Path:
    return RunFiles(silo.home / "work" / RUN / f"round-{number:04d}").adapter


def begun_by(silo: SimulatedSilo, number: int) -> Path:
    """What a silo's training of a round began with."""
    work = silo.home / "work" / RUN / f"round-{number:04d}"
    return work / OWN_FACTORS / "starting.safetensors"


def objects(federation: SimulatedFederation) -> Iterator[tuple[str, bytes]]:
    for name, bucket in federation.storage.items():
        for key, data in bucket.objects.items():
            yield f"{name}/{key}", data
    for silo in federation.silos.values():
        for name in files_below(silo.home / "outbox"):
            yield f"{silo.name}/outbox/{name}", (silo.home / "outbox" / name).read_bytes()


def require_no_b(federation: SimulatedFederation, layout: AdapterLayout, last: int) -> int:
    """Nobody's B lies in a bucket or an outbox, under any name, nor a tensor of its shape; returns
    how many adapters were looked at."""
    own = [
        b_of(silo, number)
        for silo in federation.silos.values()
        for number in range(1, last + 1)
        if (silo.home / OWN_FACTORS / RUN / f"round-{number:04d}.b.safetensors").exists()
    ]
    rows = [b[0].tobytes() for tensors in own for b in tensors.values()]
    assert len(rows) >= 2 * len(layout.pairs)
    shapes = {(target.out_features, layout.rank) for target in layout.pairs}
    assert shapes.isdisjoint((layout.rank, target.in_features) for target in layout.pairs)
    seen = 0
    for name, data in objects(federation):
        assert not any(row in data for row in rows), name
        if "/blobs/" not in name:
            continue
        assert b"lora_B" not in data, name
        if data[8:9] == b"{" and b".lora_A.weight" in data:
            seen += 1
            assert shapes.isdisjoint(tensor.shape for tensor in load(data).values()), name
    return seen


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> SimulatedFederation:
    """Two rounds: silo-b is killed after it trained in round 2, silo-c joins there. Read alone."""
    made = SimulatedFederation(tmp_path_factory.mktemp("federation"), tiny_model, merge=SHARED_A)
    for name in "abc":
        made.add_silo(f"silo-{name}")
    made.found()
    members = made.memberships[-1].record.silos
    made.change(silos=(*members[:2], members[2].model_copy(update={"first_round": 2})))
    play_rounds(made, 1, 1)
    plan, killed = made.open(2), made.silos["silo-b"]
    failures = [RuntimeError("killed")]

    def die_once() -> None:
        if failures:
            raise failures.pop()

    killed.while_training = die_once
    for _ in range(6):
        try:
            made.silos_act()
        except RuntimeError:
            break
    assert not failures, "it was killed after it had written what it trained"
    made.play(plan)
    made.silos_act()
    return made


def plans_of(federation: SimulatedFederation) -> list[Verified[RoundPlan]]:
    feed = read_federation(federation.coordinator())
    return [attempt.plan for attempt in feed.attempts]


def test_a_is_merged_as_the_weighted_mean_and_is_all_that_is_exchanged(
    played: SimulatedFederation,
) -> None:
    assert [silo.faults for silo in played.silos.values()] == [[], [], []]
    c = played.coordinator()
    plan = played.open(2).record
    attempt = read_attempt(c, read_federation(c), played.open(2))
    assert attempt.close is not None and attempt.candidate is not None
    assert attempt.decision is not None and attempt.decision.record.outcome == "published"
    candidate = attempt.candidate.record
    assert [m.module for m in candidate.modules] == [t.module for t in plan.exchanged.targets]
    assert candidate.error == candidate.discarded_energy == 0
    inputs = merge_inputs(c, plan, attempt.close.record)
    assert len(inputs.locals) == 3
    merged = load_file(spool(c, c.plans, candidate.adapter))
    for target in plan.layout.pairs:
        name = lora_a_name(target.module)
        shares = [float(share) for _, share in inputs.shares(target.a_alone(plan.layout.rank))]
        own = [load_file(trained_in(silo, 2))[name] for silo in played.silos.values()]
        assert shares == pytest.approx([1 / 3] * 3)
        np.testing.assert_allclose(merged[name], np.mean(own, axis=0), rtol=1e-5, atol=1e-6)
    assert set(merged) == {lora_a_name(target.module) for target in plan.layout.pairs}


def test_each_silo_begins_with_its_own_b(played: SimulatedFederation) -> None:
    c = played.coordinator()
    start = played.open(2).record.starting_adapter
    assert start is not None
    shared = load_file(spool(c, c.plans, start))
    for name, silo in played.silos.items():
        begun = load_file(begun_by(silo, 2))
        for target in played.open(2).record.layout.pairs:
            a, b = (of(target.module) for of in (lora_a_name, lora_b_name))
            assert np.array_equal(begun[a], shared[a])
            wanted = np.zeros_like(begun[b]) if name == "silo-c" else b_of(silo, 1)[b]
            assert np.array_equal(begun[b], wanted), name
            assert np.array_equal(b_of(silo, 2)[b], load_file(trained_in(silo, 2))[b])
    work = played.silos["silo-a"].home / "work" / RUN / "round-0002" / OWN_FACTORS
    measured = load_file(work / "candidate.safetensors")
    assert all(
        np.array_equal(measured[name], b) for name, b in b_of(played.silos["silo-a"], 2).items()
    )


def test_nothing_of_b_leaves(played: SimulatedFederation) -> None:
    layout = played.open(2).record.layout
    # Five submissions, two merges, and their copies in the outboxes.
    assert require_no_b(played, layout, 2) >= 7


def test_nothing_is_published_for_users_of_a_model(
    played: SimulatedFederation, tmp_path: Path
) -> None:
    c = played.coordinator()
    assert not c.published.exists()
    (page,) = c.reports.rglob("run-*-round-0002.html")
    words = page.read_text()
    assert "The merged factor A was taken over; each institution keeps the adapter" in words
    assert "keeps its own factor B" in words and "published/adapter_model" not in words
    report = read_report_file(page)
    candidate = plans_of(played)[-1].record
    assert candidate.shares_a
    attempt = read_attempt(c, read_federation(c), played.open(2))
    assert attempt.candidate is not None
    merged = spool(c, c.plans, attempt.candidate.record.adapter)
    claims = audit(report.bundle, played.pinned, merged, report.page)
    assert [claim.name for claim in claims if claim.outcome == "fail"] == []
    (said,) = [claim for claim in claims if claim.name == "published adapter"]
    assert said.outcome == "pass" and "factors A alone, which no model loads" in said.detail
    other = tmp_path / "own.safetensors"
    shutil.copy(begun_by(played.silos["silo-a"], 2), other)
    claims = audit(report.bundle, played.pinned, other, report.page)
    (said,) = [claim for claim in claims if claim.outcome == "fail"]
    assert "an institution's own adapter is in no report" in said.detail


def test_contributions_are_not_measured_where_there_is_no_b(
    played: SimulatedFederation, tmp_path: Path
) -> None:
    records = tmp_path / "public.jsonl"
    records.write_text('{"prompt": "a", "answer": "b"}\n')
    with pytest.raises(FederationOperatorError, match="each silo keeps its own B"):
        contributions(played.coordinator(), 2, PublicSet(records), exact=False)


def test_own_factors_are_for_their_owner_and_in_the_backup(
    played: SimulatedFederation, tmp_path: Path
) -> None:
    silo = played.silos["silo-a"]
    below = silo.home / OWN_FACTORS
    kinds = (".a.safetensors", ".b.safetensors", ".json")
    assert files_below(below) == {f"{RUN}/round-000{n}{kind}" for n in (1, 2) for kind in kinds}
    assert all(path.stat().st_mode & 0o077 == 0 for path in below.rglob("*.b.safetensors"))
    kept = kept_files(silo.agent(FEDERATION, played.pinned).config).paths
    assert {str(p.relative_to(below)) for p in kept if p.is_relative_to(below)} == files_below(
        below
    )
    out = tmp_path / "backup"
    back_up_silo(silo.agent(FEDERATION, played.pinned).config, out, played.clock.now())
    restore_silo(out, tmp_path / "restored", played.clock.now())
    found = newest_own(tmp_path / "restored")
    assert found is not None and (found.round, found.facts.round) == (2, 2)
    for name, b in b_of(silo, 2).items():
        restored = load_file(tmp_path / "restored" / OWN_FACTORS / RUN / "round-0002.b.safetensors")
        assert np.array_equal(restored[name], b)


def test_status_names_the_round_of_an_older_b(played: SimulatedFederation, tmp_path: Path) -> None:
    """Of a silo that measured round 2 and did not train in it; without an A there is no adapter."""
    shutil.copytree(played.silos["silo-a"].home / OWN_FACTORS, tmp_path / OWN_FACTORS)
    below = tmp_path / OWN_FACTORS / RUN
    (below / "round-0002.json").unlink()
    assert said_lines(view_agent(tmp_path))[-1].endswith(
        "round 2 of run-1: the A of all with this silo's own B of round 1"
    )
    for path in below.glob("*.a.safetensors"):
        path.unlink()
    assert not any(line.startswith("own ") for line in said_lines(view_agent(tmp_path)))


def test_a_damaged_b_is_none(played: SimulatedFederation, tmp_path: Path) -> None:
    shutil.copytree(played.silos["silo-a"].home / OWN_FACTORS, tmp_path / OWN_FACTORS)
    path = tmp_path / OWN_FACTORS / RUN / "round-0002.b.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    newest = OwnFactors(tmp_path, RUN).newest(2)
    assert newest is not None and newest[0].round == 1


def test_export_writes_a_of_all_with_the_own_b(played: SimulatedFederation, tmp_path: Path) -> None:
    home, into = tmp_path / "home", tmp_path / "own"
    silo = played.silos["silo-a"]
    shutil.copytree(silo.home / OWN_FACTORS, home / OWN_FACTORS)
    (home / "silo-agent.toml").write_text(
        f'silo = "silo-a"\nfederation = "{FEDERATION}"\n\n[storage]\nendpoint_url = "http://127.0.0.1:1"\n'
    )
    ran = CliRunner().invoke(app, ["export", "--personal", str(into), "--home", str(home)])
    assert ran.exit_code == 0, ran.output
    assert "round 2 of run-1: the A of all with this silo's own B" in ran.output
    (said,) = (line for line in said_lines(view_agent(home)) if line.startswith("own "))
    assert said == "own     round 2 of run-1: the A of all with this silo's own B"
    work = silo.home / "work" / RUN / "round-0002" / OWN_FACTORS
    exported, measured = (
        load_file(path)
        for path in (into / "adapter_model.safetensors", work / "candidate.safetensors")
    )
    assert all(np.array_equal(exported[name], measured[name]) for name in exported | measured)
    config = json.loads((into / "adapter_config.json").read_text())
    assert config["r"] == played.open(2).record.layout.rank
    assert files_below(into) == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "provenance.json",
    }
    words = (into / "README.md").read_text()
    assert "A is the one of all after round 2" in words and "There is no gate" not in words
    assert json.loads((into / "provenance.json").read_text())["shared_round"] == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in into.rglob("*"))


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    return make_federation({"merge": MergeSection(rule="shared_a")}, **HONEST)


@pytest.mark.long
def test_silos_that_missed_rounds_or_lost_their_disk_go_on_with_their_b(
    federation: SimulatedFederation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With int8, whose error is carried on."""
    lost, out = federation.silos["silo-b"], tmp_path / "backup"
    away, one = federation.silos["silo-c"], federation.silos["silo-a"]
    one.personal = PersonalSection(method="dual")
    with caplog.at_level(logging.INFO):
        play_rounds(federation, 1, 1)
        assert "round 1: begins with its own B at zero" in caplog.text
        away.behaviour = Behaviour.ABSENT
        config = lost.agent(FEDERATION, federation.pinned).config
        back_up_silo(config, out, federation.clock.now())
        shutil.rmtree(lost.home)
        restore_silo(out, lost.home, federation.clock.now())
        play_rounds(federation, 2, 3)
        assert caplog.text.count("round 2: goes on with its own B of round 1") == 2
        away.behaviour = Behaviour.HONEST
        caplog.clear()
        play_rounds(federation, 4, 4)
        assert caplog.text.count("round 4: goes on with its own B of round 1") == 1
        refused = 'round 4: no personal adapter: method = "dual" under [personal] is not trained'
        assert refused in caplog.text
    assert [silo.faults for silo in federation.silos.values()] == [[], [], []]
    assert one.asked["train_personal"] == 0
    begun = load_file(begun_by(away, 4))
    assert all(np.array_equal(begun[name], b) for name, b in b_of(away, 1).items())
    left = {path.name for path in (one.home / OWN_FACTORS / RUN).glob("*.b.*")}
    assert left == {"round-0003.b.safetensors", "round-0004.b.safetensors"}
    require_no_b(federation, federation.open(4).record.layout, 4)


def test_rounds_without_its_training_push_no_b_out(
    played: SimulatedFederation, tmp_path: Path
) -> None:
    """A silo that only measured rounds 2 to 5 has their A, and B of round 1 alone."""
    plan = played.open(2).record.model_copy(update={"round": 6})
    below = tmp_path / OWN_FACTORS / RUN
    below.mkdir(parents=True)
    for name in ("1.b.safetensors", "1.json", *(f"{n}.a.safetensors" for n in range(1, 6))):
        (below / f"round-000{name}").touch()
    seen = SeenRounds(plans={RUN: plan}, newest=plan)
    prune_home(SiloDisk(tmp_path, seen, DiskSection(keep_rounds=2), played.clock.now()))
    assert names_in(below) == {
        f"round-000{name}"
        for name in ("1.b.safetensors", "1.json", "4.a.safetensors", "5.a.safetensors")
    }


def test_a_run_keeps_to_it(federation: SimulatedFederation) -> None:
    play_rounds(federation, 1, 1)
    federation.settings = federation.settings.model_copy(update={"merge": MergeSection()})
    with pytest.raises(FederationOperatorError, match="expected the rule shared_a"):
        federation.open(2)


def test_one_step_is_too_few(make_federation: MakeFederation) -> None:
    federation = make_federation({"merge": SHARED_A, "steps": 1}, **HONEST)
    with pytest.raises(FederationOperatorError, match="at least 2 steps under the rule shared_a"):
        federation.open(1)


def test_a_copy_of_another_silo_s_a_does_not_count(make_federation: MakeFederation) -> None:
    """With int8: what is compared is A, whichever B its sender keeps."""
    merge = MergeSection(rule="shared_a")
    federation = make_federation({"merge": merge}, **HONEST, x=Behaviour.COPYING)
    plan = federation.open(1)
    federation.play(plan)
    c = federation.coordinator()
    close = read_attempt(c, read_federation(c), plan).close
    assert close is not None
    assert [(item.silo, item.rule) for item in close.record.rejected] == [
        ("silo-a", "free_rider.copied"),
        ("silo-x", "free_rider.copied"),
    ]


def test_heads_are_shared_with_a(make_federation: MakeFederation) -> None:
    federation = make_federation({"merge": MergeSection(rule="shared_a")}, **HONEST)
    plan = opened_with_heads(federation)
    federation.play(plan)
    assert [silo.faults for silo in federation.silos.values()] == [[], [], []]
    c = federation.coordinator()
    attempt = read_attempt(c, read_federation(c), plan)
    assert attempt.candidate is not None
    merged = open_adapter(
        spool(c, c.plans, attempt.candidate.record.adapter), plan.record.exchanged
    )
    silo = federation.silos["silo-a"]
    work = silo.home / "work" / RUN / "round-0001" / OWN_FACTORS
    measured = open_adapter(work / "candidate.safetensors", plan.record.layout)
    trained = open_adapter(trained_in(silo, 1), plan.record.layout)
    for target in plan.record.layout.wholes:
        assert np.array_equal(measured.module(target)[1], merged.module(target)[1])
        assert not np.array_equal(measured.module(target)[1], trained.module(target)[1])
    for target in plan.record.layout.pairs:
        assert np.array_equal(measured.module(target)[1], trained.module(target)[1])
