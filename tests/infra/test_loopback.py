"""This machine is asked directly, whatever proxy the environment names."""

import subprocess
import sys

import httpx
import pytest

from infra.loopback import is_loopback, no_proxy_here

CLOSED = "http://127.0.0.1:9"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:4200/api", True),
        ("http://localhost/api", True),
        ("https://[::1]:4200/api", True),
        ("https://prefect.example/api", False),
        ("http://127.0.0.1.example/api", False),
        ("http://10.0.0.1:4200/api", False),
        ("not an address", False),
        ("http://[::1:4200/api", False),
    ],
)
def test_which_addresses_are_this_machine(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected


@pytest.mark.parametrize(
    ("environ", "value"),
    [
        ({}, "127.0.0.1,::1,localhost"),
        ({"NO_PROXY": ""}, "127.0.0.1,::1,localhost"),
        ({"NO_PROXY": "hospital.example, localhost"}, "hospital.example,localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "a.example", "no_proxy": "b.example"}, "b.example,127.0.0.1,::1,localhost"),
        ({"no_proxy": "*"}, "*"),
        ({"NO_PROXY": "a.example, *"}, "*"),
    ],
)
def test_what_is_excluded_already_stays_excluded(environ: dict[str, str], value: str) -> None:
    assert no_proxy_here(environ) == {"NO_PROXY": value, "no_proxy": value}
    assert no_proxy_here(no_proxy_here(environ)) == no_proxy_here(environ)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
@pytest.mark.parametrize("proxy", [CLOSED, "socks5://127.0.0.1:9"])
@pytest.mark.parametrize("name", PROXIES)
def test_prefects_client_asks_no_proxy_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, name: str, proxy: str, host: str
) -> None:
    for other in (*PROXIES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, proxy)
    for variable, value in no_proxy_here().items():
        monkeypatch.setenv(variable, value)
    client = httpx.Client()
    transport = client._transport_for_url(httpx.URL(f"http://{host}:4200/api"))
    assert transport is client._transport
    scheme = "http" if name.lower() == "http_proxy" else "https"
    elsewhere = client._transport_for_url(httpx.URL(f"{scheme}://storage.example"))
    assert elsewhere is not client._transport, "others are still asked through the proxy"


def test_a_socks_proxy_does_not_keep_a_client_from_being_made() -> None:
    """httpx makes every proxy's transport beforehand, and SOCKS needs a package of its own."""
    code = "import httpx; httpx.Client()"
    environ = {"ALL_PROXY": "socks5://127.0.0.1:9"}
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False).returncode == 0
