"""Where the credential comes from, and the way to the storage, as the settings say it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from data_contracts.errors import ConsortiaError, StorageError
from infra.stack.local_ports import free_port
from infra.storage.config import StorageSection, s3_settings
from infra.storage.object_store import StorageUnavailableError, UnusableCredentialError
from infra.storage.s3_bucket import S3Bucket
from infra.storage.s3_client import connect
from tests.infra.answering_s3 import always

ELSEWHERE = "https://storage.example"


def write_file(home: Path, text: str) -> Path:
    path = home / "keys" / "storage-credentials.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return write_file(tmp_path, 'access_key = "AK1"\nsecret_key = "SK1"\n')


def test_a_session_token_travels_and_is_in_no_message(tmp_path: Path) -> None:
    secret = "token-that-must-not-show"
    text = f'access_key = "AK1"\nsecret_key = "SK1"\nsession_token = "{secret}"\n'
    write_file(tmp_path, text)
    with always(403) as storage:
        settings = s3_settings(StorageSection(endpoint_url=storage.endpoint_url), tmp_path)
        with pytest.raises(StorageError) as denied:
            S3Bucket(settings, "plans").put_once("key", b"data")
    assert storage.requests[0][1]["X-Amz-Security-Token"] == secret
    assert secret not in repr(settings) + str(denied.value)


@pytest.mark.parametrize(
    "text",
    [
        'access_key = "AK1"\n',
        'access_key = "AK1"\nsecret_key = ""\n',
        'access_key = "AK1"\nsecret_key = "SK1"\nsession_token = 5\n',
        'access_key = "AK1"\nsecret_key = "SK1"\ntoken = "x"\n',
        'session_token = "x"\n',
    ],
)
def test_a_file_with_something_else_says_what_belongs_in_it(tmp_path: Path, text: str) -> None:
    write_file(tmp_path, text)
    with pytest.raises(ConsortiaError, match="write access_key and secret_key, and session_token"):
        s3_settings(StorageSection(endpoint_url=ELSEWHERE), tmp_path)


def test_the_chain_finds_environment_and_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file of ours, and a profile that is named wins over the environment."""
    shared = tmp_path / "credentials"
    shared.write_text("[oncology]\naws_access_key_id = PROFILE\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(shared))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    with always(200) as storage:
        for profile, key in ((None, "ENVIRONMENT"), ("oncology", "PROFILE")):
            section = StorageSection(
                endpoint_url=storage.endpoint_url, credential_source="chain", profile=profile
            )
            S3Bucket(s3_settings(section, tmp_path), "plans").put("key", b"data")
            assert f"Credential={key}/" in storage.requests[-1][1]["Authorization"]


def test_a_chain_that_finds_nothing_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    nobody = StorageSection(endpoint_url=ELSEWHERE, credential_source="chain")
    with pytest.raises(UnusableCredentialError, match=r"AWS's default chain; found NoCred.*log in"):
        S3Bucket(s3_settings(nobody, tmp_path), "plans").get("key", 10)
    lost = StorageSection(endpoint_url=ELSEWHERE, credential_source="chain", profile="lost")
    with pytest.raises(UnusableCredentialError, match=r"AWS profile lost; found ProfileNotFound"):
        S3Bucket(s3_settings(lost, tmp_path), "plans")


def test_a_profile_beside_a_file_is_a_mistake() -> None:
    with pytest.raises(ValidationError, match='expected credential_source = "chain"'):
        StorageSection(endpoint_url=ELSEWHERE, profile="oncology")


def test_addresses_are_of_the_style_that_is_set(home: Path) -> None:
    def url(style: str) -> str:
        section = StorageSection.model_validate(
            {"endpoint_url": ELSEWHERE, "addressing_style": style}
        )
        client = connect(s3_settings(section, home), "plans")
        signed: str = client.generate_presigned_url("get_object", {"Bucket": "plans", "Key": "key"})
        return signed.partition("?")[0]

    assert url("path") == "https://storage.example/plans/key"
    assert url("virtual") == "https://plans.storage.example/key"
    assert StorageSection(endpoint_url=ELSEWHERE).addressing_style == "path"


def test_a_proxy_is_asked_for_the_storage_and_never_for_this_machine(home: Path) -> None:
    with always(200) as proxy:
        section = StorageSection(
            endpoint_url="http://storage.example", proxy=proxy.endpoint_url, allow_plain_http=True
        )
        S3Bucket(s3_settings(section, home), "plans").put("key", b"data")
        assert proxy.requests[0][0] == "PUT http://storage.example/plans/key"
        with always(200) as storage:
            here = StorageSection(endpoint_url=storage.endpoint_url, proxy=proxy.endpoint_url)
            S3Bucket(s3_settings(here, home), "plans").put("key", b"data")
        assert len(proxy.requests) == len(storage.requests) == 1


def test_a_proxy_that_is_not_there_is_named(home: Path) -> None:
    section = StorageSection(endpoint_url=ELSEWHERE, proxy=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StorageUnavailableError, match="check proxy in"):
        S3Bucket(s3_settings(section, home), "plans").get("key", 10)
