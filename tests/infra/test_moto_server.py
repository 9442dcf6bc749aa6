"""The contract of a bucket on moto's server, and a probe that names where moto breaks it.

Moto looks whether a key is there and then writes, in two steps, and knows no rights. So creates
race; its threads are switched often here, so that this shows in minutes. Either every promise
holds, or the probe names the broken one and no federation is founded.
"""

import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_contracts.errors import StorageError
from flows.federation.admin import (
    STORAGE_CREDENTIALS,
    FederationTerms,
    init_federation,
    write_credentials,
)
from infra.loopback import LOOPBACK
from infra.processes.local_processes import start_process
from infra.stack.local_ports import free_port
from infra.storage.object_store import Bucket, StorageUnavailableError
from infra.storage.probe import probe_inbox, require_promises
from infra.storage.s3_bucket import S3Bucket
from infra.storage.s3_client import S3Settings, connect
from tests.infra import test_bucket_contract as contract

pytestmark = [pytest.mark.campaign, pytest.mark.stack, pytest.mark.timeout(1800)]

key = contract.key
test_a_create_is_repeatable = contract.test_a_create_is_repeatable_but_never_overwrites
test_put_overwrites = contract.test_put_overwrites
test_get_bounds_what_it_reads = contract.test_get_bounds_what_it_reads
test_empty_objects = contract.test_empty_objects
test_ranges_are_exact_or_refused = contract.test_ranges_are_exact_or_refused
test_listing_has_every_page = contract.test_listing_has_every_page
test_a_blob_travels_whole = contract.test_a_blob_travels_whole
test_a_wrong_file_is_not_uploaded = contract.test_a_file_that_is_not_its_reference_is_not_uploaded
test_a_wrong_blob_is_refused = contract.test_a_blob_that_is_not_its_reference_is_refused
"""The contract but for its races, of which the tests below are."""

SERVER = """\
import sys
sys.setswitchinterval(1e-6)
from moto.server import main
main(["-H", sys.argv[1], "-p", sys.argv[2]])
"""
READY_SECONDS = 60
MOST_FOUNDINGS = 150
"""Of one race in 15 to one in 100 there were several winners, and a founding runs 6 of them: all of
these pass by luck less than once in a thousand campaigns."""


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Settings]:
    port = free_port()
    command = [sys.executable, "-c", SERVER, LOOPBACK, str(port)]
    server = start_process("moto", command, tmp_path_factory.mktemp("moto"), env=os.environ)
    settings = S3Settings.model_validate(
        {
            "endpoint_url": f"http://{LOOPBACK}:{port}",
            "access_key": "anybody",
            "secret_key": "anything",
        }
    )
    _wait(settings)
    yield settings
    server.stop()


@pytest.fixture(scope="module")
def bucket(moto: S3Settings) -> Bucket:
    connect(moto, "").create_bucket(Bucket="contract-plans")
    return S3Bucket(moto, "contract-plans")


def test_a_federation_is_founded_with_every_promise_or_refused_with_the_broken_one(
    moto: S3Settings, tmp_path: Path
) -> None:
    for number in range(MOST_FOUNDINGS):
        try:
            _found(moto, f"moto-{number}", tmp_path / str(number))
        except StorageError as error:
            assert error.expected == "one winner of racing creates"
            assert "of 16 racing creates won" in error.found
            assert not (tmp_path / str(number) / "federation.toml").exists()
            return
    raise AssertionError(f"not one race with two winners in {MOST_FOUNDINGS} foundings")


def test_a_store_without_rights_is_refused_by_the_silo(moto: S3Settings) -> None:
    connect(moto, "").create_bucket(Bucket="moto-inbox", ObjectLockEnabledForBucket=True)
    inbox = S3Bucket(moto, "moto-inbox")
    with pytest.raises(StorageError, match="a silo deletes no version, a silo locks nothing"):
        require_promises(probe_inbox(inbox, datetime.now(UTC), role="silo"))


def _found(moto: S3Settings, federation: str, home: Path) -> None:
    connect(moto, "").create_bucket(Bucket=f"{federation}-plans")
    write_credentials(home / STORAGE_CREDENTIALS, moto)
    api = f"http://{LOOPBACK}:4200/api"
    terms = FederationTerms(
        federation, "run-1", "Trying moto", "tiny", "MIT", home, api, moto.endpoint_url
    )
    init_federation(home, terms, None)


def _wait(settings: S3Settings) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            S3Bucket(settings, "nothing").stat("key")
        except StorageUnavailableError:
            assert time.monotonic() < deadline, "moto's server does not answer"
            time.sleep(0.2)
        except StorageError:
            return
