"""What Prefect does not answer is one message that says who has to do what."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from aggregator.settings.federation import FederationSettings, load_settings
from data_contracts.errors import FederationOperatorError
from flows.deployment.prefect_faults import prefect_answers
from flows.federation.admin import FederationTerms, settings_text
from infra.disk.durable_files import write_durably
from infra.loopback import LOOPBACK
from tests.loopback_server import answering

pytestmark = pytest.mark.long

NOWHERE = f"http://{LOOPBACK}:9/api"


@contextmanager
def server_that_says(status: int) -> Iterator[str]:
    """Where something listens that is no Prefect, or not yours, and always says the same."""
    with answering(lambda _: (status, b"<html>Welcome</html>")) as address:
        yield f"{address}/api"


def federation_at(home: Path, prefect_api_url: str) -> FederationSettings:
    terms = FederationTerms(
        federation="oncology",
        run="run-1",
        purpose="Testing",
        model_name="tiny",
        model_licence="Apache-2.0",
        model_path=home / "model",
        prefect_api_url=prefect_api_url,
        endpoint_url="http://127.0.0.1:9",
    )
    write_durably(home / "federation.toml", settings_text(terms).encode())
    write_durably(home / "keys" / "prefect-auth", b"consortia:secret")
    return load_settings(home)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, ("found 401 Unauthorized", "user:password", "keys/prefect-auth")),
        (403, ("found 403 Forbidden", "user:password")),
        (404, ("found 404 Not Found", "ends in /api", "federation.toml")),
        (502, ("found 502 Bad Gateway", "address of a Prefect server")),
    ],
)
def test_an_answer_that_is_not_prefects_is_named(
    tmp_path: Path, status: int, words: tuple[str, ...]
) -> None:
    with server_that_says(status) as url, pytest.raises(FederationOperatorError) as error:
        settings = federation_at(tmp_path, url)
        with prefect_answers(settings):
            httpx.get(f"{url}/flows", trust_env=False).raise_for_status()
    for word in (f"Prefect at {url}: expected an answer", *words):
        assert word in str(error.value)
    assert "secret" not in str(error.value)


def test_no_answer_says_how_to_start_prefect(tmp_path: Path) -> None:
    settings = federation_at(tmp_path, NOWHERE)
    named = pytest.raises(FederationOperatorError, match=r"ConnectError: .*consortia stack start")
    with named, prefect_answers(settings):
        httpx.get(NOWHERE, trust_env=False)


def test_a_fault_inside_a_group_of_faults_is_found(tmp_path: Path) -> None:
    settings = federation_at(tmp_path, NOWHERE)
    inner = ExceptionGroup("inner", [httpx.ReadTimeout("no answer in time")])
    named = pytest.raises(FederationOperatorError, match="ReadTimeout: no answer in time")
    with named, prefect_answers(settings):
        raise ExceptionGroup("outer", [inner, ValueError("x")])


def test_other_faults_stay_what_they_are(tmp_path: Path) -> None:
    settings = federation_at(tmp_path, NOWHERE)
    with pytest.raises(ExceptionGroup), prefect_answers(settings):
        raise ExceptionGroup("outer", [ValueError("x")])
    for fault in (KeyError("x"), RuntimeError("x")):
        with pytest.raises(type(fault)), prefect_answers(settings):
            raise fault


def test_prefects_own_words_for_no_answer_are_understood(tmp_path: Path) -> None:
    settings = federation_at(tmp_path, NOWHERE)
    code = (
        "import sys; from pathlib import Path\n"
        "from aggregator.settings.federation import load_settings\n"
        "from flows.deployment.prefect_settings import use_prefect_of\n"
        "settings = load_settings(Path(sys.argv[1])); use_prefect_of(settings)\n"
        "from prefect.client.orchestration import get_client\n"
        "from flows.deployment.prefect_faults import prefect_answers\n"
        "with prefect_answers(settings), get_client(sync_client=True) as client:\n"
        "    client.raise_for_api_version_mismatch()\n"
    )
    command = [sys.executable, "-c", code, str(settings.home)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("flows.deployment.prefect_faults.PrefectUnavailableError: Prefect at"), (
        done.stderr
    )


def test_rounds_without_prefect_end_in_one_message(tmp_path: Path) -> None:
    """Whatever proxy is set, and with a HOME that nothing can be written to."""
    environ = {"HTTP_PROXY": "http://127.0.0.1:1", "HOME": "/dev/null"}
    federation_at(tmp_path, NOWHERE)
    message = start_a_round(tmp_path, **environ)
    assert message.startswith(f"error: Prefect at {NOWHERE}: expected an answer; found Connect")
    assert (tmp_path / "prefect").is_dir(), "Prefect's own files lie in the federation's home"


@pytest.mark.parametrize(
    ("status", "found"), [(200, "found one that is not Prefect's"), (404, "found 404 Not Found")]
)
def test_a_server_that_is_not_prefect_is_not_taken_for_one(
    tmp_path: Path, status: int, found: str
) -> None:
    with server_that_says(status) as url:
        federation_at(tmp_path, url)
        message = start_a_round(tmp_path)
    assert message.startswith(f"error: Prefect at {url}: expected an answer; {found}")
    assert "ends in /api" in message


def start_a_round(home: Path, **environ: str) -> str:
    """What `consortia round start` says when it fails: one line, or the test fails."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "round", "start", "--home", str(home)],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (message,) = done.stderr.splitlines()
    return message
