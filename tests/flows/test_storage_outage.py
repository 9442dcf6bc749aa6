"""What of a storage is waited for, how long, and what is said meanwhile."""

from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Thread

import pytest

from data_contracts.errors import StorageError
from flows.round.storage_outage import (
    LONGEST_PAUSE_SECONDS,
    SHORTEST_WAIT,
    OutageWait,
    pause_seconds,
    waits_until,
)
from infra.stack.local_ports import free_port
from infra.storage.object_store import (
    AccessDeniedError,
    RefusedRequestError,
    StorageUnavailableError,
    UnusableCredentialError,
)
from infra.storage.s3_bucket import S3Bucket, S3Settings
from tests.loopback_server import answering
from tests.simulator.fake_clock import START, FakeClock

FAR = START + timedelta(hours=12)


class Storage:
    """Away from one moment of a clock to another; counts how often it was asked."""

    def __init__(self, clock: FakeClock, *away_seconds: tuple[float, float]) -> None:
        self.clock, self.tries = clock, 0
        self._away = [
            (START + timedelta(seconds=a), START + timedelta(seconds=b)) for a, b in away_seconds
        ]

    def ask(self) -> str:
        self.tries += 1
        if any(start <= self.clock.now() < end for start, end in self._away):
            raise StorageUnavailableError(
                "object storage at s3", expected="an answer", found="503", action="-"
            )
        return "an answer"


def bucket(endpoint_url: str) -> S3Bucket:
    settings = S3Settings(endpoint_url=endpoint_url, access_key="AKEXAMPLE", secret_key="secret")
    return S3Bucket(settings, "plans")


def test_an_outage_of_hours_is_waited_out_with_one_line_a_minute() -> None:
    clock, said = FakeClock(), list[str]()
    storage = Storage(clock, (0, 2 * 3600))
    assert OutageWait(clock, said.append).through(FAR, storage.ask) == "an answer"
    assert timedelta(hours=2) <= clock.now() - START <= timedelta(hours=2, seconds=30)
    assert 2 * 3600 / 30 <= storage.tries <= 2 * 3600 / 30 + 10
    assert 110 <= len(said) <= 121
    assert said[0] == (
        "waiting for object storage at s3 since 2026-01-05 09:00:00 UTC, "
        "until 2026-01-05 21:00:00 UTC at the latest: 503"
    )
    assert said[-1].startswith("object storage answers again, after 72")


def test_any_number_of_short_outages_is_waited_out() -> None:
    clock, said = FakeClock(), list[str]()
    times = [(start, start + 20.0) for start in range(0, 3600, 60)]
    storage, wait = Storage(clock, *times), OutageWait(clock, said.append)
    while clock.now() < START + timedelta(hours=1):
        assert wait.through(FAR, storage.ask) == "an answer"
        clock.sleep(5)
    assert sum("since" in line for line in said) == len(times)
    assert sum("again" in line for line in said) == len(times)


@pytest.mark.parametrize(
    ("deadline", "ends_after"),
    [
        (None, SHORTEST_WAIT),
        (START - timedelta(days=1), SHORTEST_WAIT),
        (START + timedelta(minutes=29), SHORTEST_WAIT),
        (START + timedelta(minutes=31), timedelta(minutes=31)),
        (FAR, timedelta(hours=12)),
    ],
)
def test_it_ends_at_the_deadline_and_not_before_the_stated_time(
    deadline: datetime | None, ends_after: timedelta
) -> None:
    clock = FakeClock()
    storage = Storage(clock, (0, 1e6))
    with pytest.raises(StorageUnavailableError, match="503"):
        OutageWait(clock, lambda _: None).through(deadline, storage.ask)
    assert clock.now() - START == ends_after


def test_pauses_grow_to_half_a_minute_and_never_past_the_end() -> None:
    pauses = [pause_seconds(failures, timedelta(days=1)) for failures in range(1, 2000)]
    assert pauses[:6] == [1, 2, 4, 8, 16, LONGEST_PAUSE_SECONDS]
    assert set(pauses[6:]) == {LONGEST_PAUSE_SECONDS}
    assert pause_seconds(9, timedelta(seconds=3)) == 3
    assert waits_until(START, FAR) == FAR


def test_many_steps_that_wait_say_it_once() -> None:
    clock, said = FakeClock(), list[str]()
    wait = OutageWait(clock, said.append)

    def step() -> None:
        wait.through(FAR, Storage(clock, (0, 50)).ask)

    threads = [Thread(target=step) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("waiting" in line for line in said) == 1
    assert sum("again" in line for line in said) == 1


@pytest.mark.parametrize("kind", [StorageError, AccessDeniedError, RefusedRequestError])
def test_what_storage_says_for_good_is_raised_at_once(kind: type[StorageError]) -> None:
    clock, said = FakeClock(), list[str]()

    def step() -> None:
        raise kind("plans", expected="access", found="403", action="check the key")

    with pytest.raises(kind, match="check the key"):
        OutageWait(clock, said.append).through(FAR, step)
    assert (clock.now(), said) == (START, [])


def _xml(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, _xml("InternalError"), StorageUnavailableError),
        (502, b"<html>Bad Gateway</html>", StorageUnavailableError),
        (503, _xml("SlowDown"), StorageUnavailableError),
        (504, b"", StorageUnavailableError),
        (429, _xml("TooManyRequests"), StorageUnavailableError),
        (408, _xml("RequestTimeout"), StorageUnavailableError),
        (501, _xml("NotImplemented"), StorageError),
        (403, _xml("InvalidAccessKeyId"), UnusableCredentialError),
        (401, _xml("Unauthorized"), AccessDeniedError),
        (404, _xml("NoSuchBucket"), StorageError),
        (400, _xml("InvalidRequest"), RefusedRequestError),
    ],
)
def test_answers_that_are_an_outage(status: int, body: bytes, kind: type[StorageError]) -> None:
    with answering(lambda _: (status, body)) as address, pytest.raises(StorageError) as raised:
        bucket(address).get("key", 10)
    assert type(raised.value) is kind


def _nobody_listens() -> str:
    return f"http://127.0.0.1:{free_port()}"


def _no_such_name() -> str:
    return "https://storage.invalid"


@pytest.mark.parametrize("address", [_nobody_listens, _no_such_name])
def test_no_answer_is_an_outage(address: Callable[[], str]) -> None:
    with pytest.raises(StorageUnavailableError, match="check that it runs"):
        bucket(address()).list_keys("")


def test_a_server_without_the_certificate_is_no_outage() -> None:
    """TLS towards a server that speaks none: the address is wrong, and stays so."""
    with answering(lambda _: (200, b"")) as address, pytest.raises(StorageError) as raised:
        bucket(address.replace("http:", "https:")).get("key", 10)
    assert type(raised.value) is StorageError
