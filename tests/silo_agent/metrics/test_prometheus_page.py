"""The page of metrics: on loopback only, of the last moment, and its port given back."""

import socket
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from data_contracts.errors import SiloOperatorError
from infra.loopback import LOOPBACK, direct_opener
from silo_agent.loop import only_agent, run_agent
from silo_agent.metrics.metrics import Metrics
from silo_agent.metrics.prometheus_page import PrometheusPage, require_port
from silo_agent.metrics.readings import NO_READINGS
from tests.silo_agent.metrics.moments import LOADING, MOMENT, moment
from tests.silo_agent.ready_silo import ReadySilo
from tests.simulator.federation import FEDERATION
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

pytest.importorskip("prometheus_client", reason="consortia[metrics] is not installed")

Samples = dict[tuple[str, str], float]


def free_port() -> int:
    with socket.socket() as found:
        found.bind((LOOPBACK, 0))
        return int(found.getsockname()[1])


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        yield int(other.getsockname()[1])


@contextmanager
def served(ranks: list[int] | None = None) -> Iterator[tuple[PrometheusPage, int]]:
    port = free_port()
    page = PrometheusPage(port, "north", "oncology", lambda: ranks or [])
    with Metrics([page]):
        yield page, port


def scraped(port: int) -> Samples:
    """Every sample by its name and the value of its last label, as Prometheus' own parser reads."""
    from prometheus_client.parser import text_string_to_metric_families

    with direct_opener().open(f"http://{LOOPBACK}:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return {
        (sample.name.removeprefix("consortia_"), "/".join(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_page_of_an_agent_that_does_nothing_yet() -> None:
    with served() as (_, port):
        found = scraped(port)
    assert [key for key in found if key[0] == "agent_info" and "oncology" in key[1]]
    assert found["rank_processes", ""] == 0
    assert all(value == 0 for (name, _), value in found.items() if name == "phase")
    assert ("step", "") not in found and ("loss", "training") not in found


def test_the_page_says_what_the_status_says_and_the_loss() -> None:
    with served([1_900_000_000, 1_800_000_000]) as (page, port):
        page.show(LOADING)
        page.show(moment(1, 2.5))
        found = scraped(port)
        assert found["phase", "training"] == 1
        assert sum(value for (name, _), value in found.items() if name == "phase") == 1
        assert (found["round", ""], found["attempt", ""]) == (3, 2)
        assert (found["step", ""], found["steps", ""]) == (1, 4)
        assert found["tokens_per_second", ""] == 158.2
        assert found["left_seconds", ""] == 86
        assert found["loss", "training"] == 2.5
        assert found["rank_processes", ""] == 2
        assert found["rank_memory_bytes", ""] == 3_700_000_000
        assert found["rank_memory_largest_bytes", ""] == 1_900_000_000
        assert found["gpu_memory_bytes", ""] == 20_100_000_000
        assert found["last_report_timestamp_seconds", ""] == MOMENT.at.timestamp()


def test_a_loss_stays_until_the_next_attempt_and_a_speed_until_the_next_phase() -> None:
    with served() as (page, port):
        page.show(moment(4, 2.5))
        page.show(replace(MOMENT, phase="releasing", readings=NO_READINGS))
        page.show(moment(1, 3.5, phase="evaluating", attempt=2))
        page.show(LOADING)
        found = scraped(port)
        assert (found["loss", "training"], found["loss", "heldout"]) == (2.5, 3.5)
        assert ("tokens_per_second", "") not in found
        page.show(replace(LOADING, attempt=3))
        assert not [key for key in scraped(port) if key[0] == "loss"]


def test_only_this_machine_can_ask() -> None:
    with served() as (_, port):
        listening = [
            connection.laddr.ip
            for connection in psutil.Process().net_connections("inet")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        ]
    assert listening == [LOOPBACK]


def test_the_port_is_given_back_and_had_again() -> None:
    with served() as (_, port):
        scraped(port)
    with pytest.raises(urllib.error.URLError):
        scraped(port)
    again = PrometheusPage(port, "north", "oncology", list)
    with Metrics([again]):
        assert scraped(port)


def test_a_taken_port_is_one_message_before_anything_is_said(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    federation.open()
    silo = federation.silos["silo-a"]
    with taken_port() as port:
        page = PrometheusPage(port, "silo-a", FEDERATION, list)
        agent = replace(silo.agent(FEDERATION, federation.pinned), metrics=Metrics([page]))
        with pytest.raises(SiloOperatorError) as caught:
            run_agent(agent)
        with pytest.raises(SiloOperatorError, match=f"expected port {port} of {LOOPBACK}"):
            require_port(port)
    assert f"expected port {port} of {LOOPBACK} to be free" in str(caught.value)
    assert "name another port" in str(caught.value)
    assert not silo.kinds() and not list(silo.inbox.list_keys("status/"))


def test_check_names_a_taken_port_but_not_one_that_the_agent_itself_has(tmp_path: Path) -> None:
    silo = ReadySilo(tmp_path)
    path = silo.home / "silo-agent.toml"
    with taken_port() as port:
        path.write_text(f"{path.read_text()}\n[metrics]\nprometheus_port = {port}\n")
        item = silo.items()["metrics"]
        assert item.state == "wrong" and f"port {port}" in item.detail
        with only_agent(silo.home):
            assert silo.items()["metrics"].state == "there"
    assert silo.items()["metrics"].state == "there"
