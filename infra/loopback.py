"""This machine's own addresses, which are reached directly whatever proxy the environment names.

A proxy is another machine: to it, 127.0.0.1 is itself. The libraries of S3 and of Prefect read the
environment's proxies each in its own way, so every way to say "not this one" is used.
"""

import os
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"
LOOPBACK_HOSTS = (LOOPBACK, "::1", "localhost")


def is_loopback(url: str) -> bool:
    """Whether `url` names this machine; what is no URL names none."""
    try:
        return urlsplit(url).hostname in LOOPBACK_HOSTS
    except ValueError:
        return False


def no_proxy_here(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """NO_PROXY, in both spellings, with this machine added to what `environ` excludes already."""
    # urllib, and so httpx and websockets, let the lower case win.
    said = environ.get("no_proxy", environ.get("NO_PROXY", ""))
    hosts = [host.strip() for host in said.split(",") if host.strip()]
    # "*" excludes every host, but to urllib only when it stands alone.
    missing = [host for host in LOOPBACK_HOSTS if host not in hosts]
    value = "*" if "*" in hosts else ",".join(hosts + missing)
    return {"NO_PROXY": value, "no_proxy": value}


def direct_opener() -> urllib.request.OpenerDirector:
    """Opens addresses of this machine, without any proxy."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))
