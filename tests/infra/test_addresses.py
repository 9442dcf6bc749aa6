"""Which addresses a client could use, and which can be read on the way."""

import pytest

from infra.addresses import address_fault, http_address, is_plain, prefect_api


@pytest.mark.parametrize(
    "url",
    [
        "https://storage.example",
        "https://storage.example:8333",
        "http://127.0.0.1:9000",
        "http://[::1]:9000",
        "http://localhost",
        "https://minio.internal./path",
        "https://my_minio:9000",
        "HTTPS://STORAGE.EXAMPLE",
    ],
)
def test_usable_addresses(url: str) -> None:
    assert address_fault(url) is None
    assert http_address(f"{url}/") == url


@pytest.mark.parametrize(
    ("url", "lacks"),
    [
        ("storage.example:8333", "http:// or https:// in front"),
        ("s3://bucket", "http:// or https:// in front"),
        ("https:/storage.example", "http:// or https:// in front"),
        ("https://", "the name or number of a host"),
        ("https://.example", "the name or number of a host"),
        ("https://a..b", "the name or number of a host"),
        ("https://" + "a" * 64, "the name or number of a host"),
        ("https://key:secret@storage.example", "no user name or password"),
        ("https://storage.example/?a", "nothing after"),
        ("https://storage.example:", "a port from 1 to 65535"),
        ("https://storage.example:65536", "a port from 1 to 65535"),
        ("https://[::1", "can be told apart"),
        ("https://storage.example\t", "visible ASCII"),
        ("https://stor\u0430ge.example", "visible ASCII"),
    ],
)
def test_what_an_address_lacks_is_said(url: str, lacks: str) -> None:
    with pytest.raises(ValueError, match="expected an address such as https://") as refused:
        http_address(url)
    assert lacks in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:4200/api",
        "https://p.example/prefect/api/",
        "https://api.prefect.cloud/api/accounts/1/workspaces/2",
    ],
)
def test_addresses_of_prefect(url: str) -> None:
    assert prefect_api(url) == url.rstrip("/")


@pytest.mark.parametrize("url", ["http://127.0.0.1:4200", "http://127.0.0.1:4200/apis", "x/api"])
def test_addresses_that_are_not_prefects_api(url: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        prefect_api(url)


def test_what_stays_on_this_machine_is_not_plain() -> None:
    assert is_plain("http://10.0.0.1") and is_plain("HTTP://storage.example")
    assert not any(map(is_plain, ("http://127.0.0.1:1", "http://[::1]", "https://10.0.0.1")))
