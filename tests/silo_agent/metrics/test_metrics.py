"""Metrics cost nothing when off, show every step when on, and never hold up a round."""

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

import pytest

from data_contracts.errors import SiloOperatorError
from infra.storage.config import StorageSection
from silo_agent.agent import poll_once
from silo_agent.cli import run
from silo_agent.config import MetricsSection, SiloConfig, load_config
from silo_agent.loop import run_agent
from silo_agent.metrics import metrics as in_background
from silo_agent.metrics.chosen import chosen_metrics, require_metrics
from silo_agent.metrics.metrics import InBackground, Metrics
from silo_agent.metrics.readings import Moment, Readings
from silo_agent.readiness.checklist import Item
from tests.silo_agent.metrics.moments import LOADING, MOMENT, moment
from tests.silo_agent.ready_silo import ReadySilo
from tests.simulator.federation import FEDERATION
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour


@dataclass
class Kept:
    """An exporter, and a writer, that keeps what it gets."""

    moments: list[Moment] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.ends.append("started")

    def show(self, moment: Moment) -> None:
        self.moments.append(moment)

    def write(self, moments: Sequence[Moment]) -> None:
        self.moments += moments

    def close(self) -> None:
        self.ends.append("closed")


def config(home: Path, **metrics: object) -> SiloConfig:
    return SiloConfig(
        silo="north",
        federation="oncology",
        storage=StorageSection(endpoint_url="http://127.0.0.1:1"),
        metrics=MetricsSection.model_validate(metrics),
        home=home,
    )


def test_nothing_is_imported_and_no_thread_runs_when_it_is_off(tmp_path: Path) -> None:
    ReadySilo(tmp_path)
    check = (
        "import sys, threading; from pathlib import Path; import silo_agent.cli\n"
        "from silo_agent.assembly import assemble_silo\n"
        f"with assemble_silo(Path({str(tmp_path / 'a silo')!r})).metrics: pass\n"
        "print(sorted({'prometheus_client', 'httpx', 'tensorboard'} & set(sys.modules)))\n"
        "print(threading.active_count())"
    )
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, check=True, text=True)
    assert ran.stdout.split("\n")[:2] == ["[]", "1"]


def test_an_agent_shows_every_step_however_seldom_its_status_leaves(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    plan = federation.open()
    silo, kept = federation.silos["silo-a"], Kept()
    shown = Metrics([kept])
    agent = replace(silo.agent(FEDERATION, federation.pinned), metrics=shown)
    with shown:
        for _ in range(3):
            poll_once(agent)
    phases = [(each.phase, each.step) for each in kept.moments]
    assert phases[:2] == [("checking_data", 0), ("training", 1)]
    assert phases[-1] == ("releasing", plan.record.recipe.local_steps)
    assert kept.ends == ["started", "closed"]
    assert {(each.run, each.round, each.attempt) for each in kept.moments} == {("run-1", 1, 1)}


def test_it_is_over_with_the_agent_and_begins_after_a_second_one_is_refused(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST)
    silo, kept = federation.silos["silo-a"], Kept()
    agent = replace(silo.agent(FEDERATION, federation.pinned), metrics=Metrics([kept]))
    (silo.home / "STOP").touch()
    run_agent(agent)
    assert kept.ends == ["started", "closed"]
    agent.metrics.show(MOMENT)
    assert MOMENT not in kept.moments


class Blocked(Kept):
    """Waits for ever at the first moment."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = Event()

    def write(self, moments: Sequence[Moment]) -> None:
        self.answers.wait(60)


def test_what_waits_for_ever_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_background, "CLOSING_SECONDS", 0.1)
    monkeypatch.setattr(in_background, "MOST_WAITING", 100)
    writer = Blocked()
    exporter = InBackground("MLflow", writer)
    began = time.monotonic()
    with Metrics([exporter]) as metrics:
        for step in range(1, 1000):
            metrics.show(moment(step, 2.0))
        waiting = exporter._waiting.qsize()
    assert time.monotonic() - began < 5
    assert waiting <= 100
    writer.answers.set()


@dataclass
class Failing(Kept):
    """Fails as long as it is told to."""

    fault: Callable[[], Exception | None] = lambda: None
    tried: Event = field(default_factory=Event)

    def write(self, moments: Sequence[Moment]) -> None:
        try:
            if (fault := self.fault()) is not None:
                raise fault
            super().write(moments)
        finally:
            self.tried.set()

    def shown(self, exporter: InBackground, step: int) -> None:
        self.tried.clear()
        exporter.show(moment(step, 2.0))
        assert self.tried.wait(10)


def test_a_fault_is_said_once_and_once_more_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults: list[Exception | None] = [
        *(OSError(f"no answer {n}\nand more of it") for n in range(5)),
        None,
        None,
        KeyError("x" * 9999),
    ]
    writer = Failing(fault=lambda: faults.pop(0))
    exporter = InBackground("MLflow", writer)
    with caplog.at_level(logging.INFO), Metrics([exporter]):
        for step in range(1, 9):
            writer.shown(exporter, step)
    assert [record.getMessage()[:80] for record in caplog.records] == [
        "MLflow: not written, training goes on: OSError: no answer 0",
        "MLflow: written again",
        f"MLflow: not written, training goes on: KeyError: '{'x' * 30}",
    ]
    assert [each.step for each in writer.moments] == [6, 7]
    assert writer.ends == ["closed"]


def test_only_steps_are_written_with_what_was_measured() -> None:
    assert LOADING.measured == {}
    assert set(MOMENT.measured) == {
        "training/loss",
        "training/tokens_per_second",
        "training/memory_bytes",
        "training/gpu_memory_bytes",
    }
    only = Readings(loss=3.0)
    assert replace(MOMENT, phase="evaluating", readings=only).measured == {"heldout/loss": 3.0}
    alone = replace(MOMENT, phase="training_baseline", readings=only)
    assert alone.measured == {"baseline/loss": 3.0}
    assert replace(MOMENT, phase="releasing").measured == {}


REMOTE = "losses on training records would leave the machine"
TOML = """\
silo = "north"
federation = "oncology"
[storage]
endpoint_url = "http://127.0.0.1:1"
[metrics]
"""


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('mlflow = "https://mlflow.example"', REMOTE),
        ('mlflow = "http://127.0.0.1.example:5000"', REMOTE),
        ('mlflow = "http://[::2]:5000"', REMOTE),
        ('mlflow = "databricks://profile"', "http:// or https:// in front"),
        ('mlflow = "http://user:word@127.0.0.1"', "credentials have files of their own"),
        ('mlflow = "http://127.0.0.1:0"', "a port from 1 to 65535"),
        ('mlflow = ""', "http:// or https:// in front"),
        ('mlflow = "metrics/mlflow"', "the address of a server in mlflow"),
        ("prometheus_port = 0", "greater than or equal to 1"),
        ("prometheus_port = 65536", "less than or equal to 65535"),
        ("prometheus = 9464", "no setting of that name"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_one_message(
    tmp_path: Path, lines: str, words: str
) -> None:
    (tmp_path / "silo-agent.toml").write_text(TOML + lines + "\n")
    with pytest.raises(SiloOperatorError) as caught:
        load_config(tmp_path)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "lines",
    [
        'mlflow = "https://mlflow.example"\nallow_remote_mlflow = true',
        'mlflow = "http://127.0.0.1:5000"',
        'mlflow = "http://localhost:5000"',
        'tensorboard = "/var/log/tensorboard"',
        "prometheus_port = 9464",
    ],
)
def test_what_can_be_meant_is_taken(tmp_path: Path, lines: str) -> None:
    (tmp_path / "silo-agent.toml").write_text(TOML + lines + "\n")
    assert len(chosen_metrics(load_config(tmp_path), lambda: ())._exporters) == 1


PACKAGE, EXTRA = "prometheus_client", "pip install 'consortia[metrics]', or remove the setting"


def test_a_missing_package_is_one_message_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(SiloOperatorError) as caught:
        require_metrics(config(tmp_path, prometheus_port=9464).metrics, with_port=False)
    assert "prometheus_port in [metrics]" in str(caught.value)
    assert f"expected the Python package {PACKAGE}" in str(caught.value)
    assert EXTRA in str(caught.value)
    others = {"tensorboard": "folder", "mlflow": "http://127.0.0.1:5000"}
    require_metrics(config(tmp_path, **others).metrics, with_port=True)


@pytest.fixture
def ready(tmp_path: Path) -> ReadySilo:
    return ReadySilo(tmp_path)


def checked(ready: ReadySilo, lines: str) -> Item | None:
    path = ready.home / "silo-agent.toml"
    path.write_text(f"{path.read_text()}\n[metrics]\n{lines}\n")
    return ready.items().get("metrics")


def test_check_says_nothing_of_metrics_that_are_off(ready: ReadySilo) -> None:
    assert "metrics" not in ready.items()


def test_check_says_what_is_on(ready: ReadySilo) -> None:
    item = checked(ready, 'tensorboard = "boards"')
    assert item is not None
    assert (item.state, item.detail) == ("there", "tensorboard = boards")


def test_check_and_start_say_the_same_of_what_is_missing(
    ready: ReadySilo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    item = checked(ready, "prometheus_port = 9464")
    assert item is not None and item.state == "wrong"
    assert item.next_step == EXTRA
    with pytest.raises(SiloOperatorError) as caught:
        run(ready.home)
    assert caught.value.action == EXTRA
