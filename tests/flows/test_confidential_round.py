"""Rounds in confidential mode on the real stack: SeaweedFS, Prefect, agents and DeepSpeed ranks.

The tests of this module share a federation and run in order. An agent is killed between its sealed
shares and its masked file, and storage is searched for what nobody may see.
"""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from aggregator.attempt import Attempt
from aggregator.evidence.look import look
from aggregator.feed.reading import newest_attempt, read_federation
from data_contracts.protocol.records import RoundReport
from infra.processes.local_processes import LocalProcess, stop_recorded
from infra.stack.local_stack import RunningPrefect, StoragePorts, start_object_storage
from tests.flows.real_federation import RealFederation, wait_for

pytestmark = [pytest.mark.long, pytest.mark.stack, pytest.mark.timeout(900)]

ROUND_SECONDS = 400
SILOS = ("silo-a", "silo-b", "silo-c")


class Confidential(RealFederation):
    """Three silos that all take part, and can only be summed together."""

    def make_confidential(self) -> None:
        """What the operator and each silo's people change for it."""
        settings = self.home / "federation.toml"
        text = settings.read_text()
        text = re.sub(r"(?m)^(rule|compression) = .*\n(\s+#.*\n)*", "", text)
        text = text.replace('trust_mode = "auditable"', 'trust_mode = "confidential"')
        text = text.replace("[publication]", "[masking]\nthreshold = 3\n\n[publication]", 1)
        settings.write_text(text)
        for silo in SILOS:
            policy = self.silo_home(silo) / "policy.toml"
            changed = policy.read_text().replace("auditable", "confidential")
            changed = changed.replace("[limits]", "[limits]\nmin_summed_silos = 3")
            policy.write_text(changed.replace("max_rank = 4", "max_rank = 8"))

    def attempt(self) -> Attempt | None:
        """The newest one, as it is now."""
        c = self.coordinator()
        feed = read_federation(c)
        newest = newest_attempt(c, feed)
        return None if newest is None else look(c, newest.plan, feed).attempt

    def has_sealed(self, silo: str) -> bool:
        """Whether a silo has sealed its shares in this round."""
        attempt = self.attempt()
        return attempt is not None and attempt.of(silo).sealed_shares is not None

    def secrets(self) -> list[Path]:
        """Files of secrets in the homes."""
        found = (path for silo in SILOS for path in (self.silo_home(silo) / "masking").rglob("*"))
        return [path for path in found if path.is_file()]


@pytest.fixture(scope="module")
def federation(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: RunningPrefect
) -> Iterator[Confidential]:
    directory = tmp_path_factory.mktemp("confidential")
    storage = start_object_storage(directory / "storage", StoragePorts.automatic())
    federation = Confidential(directory, storage, prefect_server)
    federation.edit_settings(local_steps=20)
    federation.make_confidential()
    yield federation
    stop_recorded(federation.state)
    stop_recorded(storage.state_dir)


def test_a_round_is_published_although_an_agent_is_killed_on_the_way(
    federation: Confidential,
) -> None:
    agents = {silo: federation.start_agent(silo) for silo in SILOS}
    runner = federation.start_runner()
    wait_for("deployment", lambda: "serving" in runner.log_path.read_text(), 240, (runner,))
    federation.consortia("round", "start", "--home", str(federation.home))
    everybody: tuple[LocalProcess, ...] = (*agents.values(), runner)
    wait_for("sealed shares", lambda: federation.has_sealed("silo-b"), ROUND_SECONDS, everybody)
    agents["silo-b"].signal(signal.SIGKILL)
    wait_for("end", lambda: not agents["silo-b"].is_running(), 30, ())
    agents["silo-b"] = federation.start_agent("silo-b")
    report = wait_for(
        "report",
        lambda: federation.reported(1, 1),
        ROUND_SECONDS,
        (*agents.values(), runner),
    )
    assert report.outcome == "published", _logs(federation)
    assert report.trust_mode == "confidential"
    assert [silo.outcome for silo in report.silos] == ["admitted"] * 3


def _logs(federation: Confidential) -> str:
    return "\n".join(path.read_text()[-2000:] for path in (federation.state / "logs").glob("*.log"))


def test_an_auditor_verifies_what_was_opened(federation: Confidential) -> None:
    # The report is signed before its page is made.
    pages = federation.home / "reports"
    page = wait_for("page", lambda: next(pages.glob("*round-0001.html"), None), 60, ())
    trust = federation.silo_home("silo-a") / "membership.json"
    said = federation.consortia("report", "verify", str(page), "--trust", str(trust))
    assert "masked sum opened as agreed" in said
    assert "no claim fails" in said


def test_nothing_of_one_silo_lies_in_storage_or_logs_and_no_secret_in_its_home(
    federation: Confidential,
) -> None:
    assert federation.secrets() == []
    pieces = [
        tensor.tobytes()[64:128]
        for silo in SILOS
        for path in (federation.silo_home(silo) / "work").rglob("adapter.safetensors")
        for tensor in load_file(path).values()
        if tensor.any()
    ]
    assert len(pieces) > 3 * len(SILOS)
    stored = [path for path in federation.storage.state_dir.rglob("*") if path.is_file()]
    everything = b"".join(path.read_bytes() for path in stored)
    assert len(everything) > 100_000
    assert [piece for piece in pieces if any(piece) and piece in everything] == []


def test_the_report_is_the_one_that_people_read(federation: Confidential) -> None:
    report = federation.reported(1, 1)
    assert isinstance(report, RoundReport)
    page = next((federation.home / "reports").glob("*round-0001.html")).read_text()
    assert "see the sum over at least 3 of them" in page
    assert "nobody saw the institutions' own changes" in page.replace("&#39;", "'")
