"""Addresses of HTTP servers, as a person types them, judged before anything connects to them."""

import re
from urllib.parse import SplitResult, urlsplit

from infra.loopback import is_loopback

_HOST = re.compile(r"(?!.{254})(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_PREFECT_CLOUD = "/api/accounts/"


def http_address(text: str) -> str:
    """`text` without a slash at its end; raises ValueError unless a server can be reached by it."""
    fault = address_fault(text)
    if fault is not None:
        raise ValueError(f"expected an address such as https://storage.example:8333, with {fault}")
    return text.rstrip("/")


def prefect_api(text: str) -> str:
    """`http_address` of a Prefect API, which lies under /api."""
    address = http_address(text)
    path = urlsplit(address).path
    if not path.endswith("/api") and not path.startswith(_PREFECT_CLOUD):
        raise ValueError("expected the address of a Prefect API, with /api at its end")
    return address


def is_plain(url: str) -> bool:
    """Whether what is sent to `url` can be read on its way: http, and beyond this machine."""
    return urlsplit(url).scheme == "http" and not is_loopback(url)


def address_fault(url: str) -> str | None:
    """What the address of an HTTP server needs and `url` lacks, or None."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return "visible ASCII characters only"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "a host and a port from 1 to 65535 that can be told apart"
    if parts.scheme not in ("http", "https") or "://" not in url:
        return "http:// or https:// in front"
    if port == 0 or parts.netloc.endswith(":"):
        return "a port from 1 to 65535 after the colon, or no colon"
    return _authority_fault(parts)


def _authority_fault(parts: SplitResult) -> str | None:
    host = parts.hostname or ""
    # What urlsplit accepts between brackets is an IPv6 address.
    if not (_HOST.fullmatch(host) or ":" in host):
        return "the name or number of a host"
    if "@" in parts.netloc:
        return "no user name or password: credentials have files of their own"
    if parts.query or parts.fragment:
        return "nothing after ? or #"
    return None
