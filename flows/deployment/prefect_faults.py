"""What Prefect's client raises, as one message for the federation operator."""

import json
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from pydantic import ValidationError

from aggregator.settings.federation import SETTINGS_NAME, FederationSettings
from data_contracts.errors import FederationOperatorError
from infra.terminal import command_line

FOREIGN = (json.JSONDecodeError, ValidationError)
"""An answer that is somebody else's: no JSON, or JSON of another form."""

FAULTS = (httpx.HTTPError, httpx.InvalidURL, *FOREIGN)
"""No way to Prefect, an answer that refuses, and an answer that is somebody else's."""

PROBE_SECONDS = 10.0

_UNREACHED = ("Failed to reach API", "Service exceeded error threshold")
"""How Prefect says it where it asks for the server's version first, and where it gives up."""

_PASSING = range(500, 600)
"""Status codes of a server, or of what stands before it, that is not up yet."""

_VERSION = re.compile(r'"\d+\.\d+[^"]{0,40}"')
_UNAUTHORISED = (401, 403)


class PrefectUnavailableError(FederationOperatorError):
    """Nobody answered, or somebody who said "not now": it may answer later."""


@contextmanager
def prefect_answers(settings: FederationSettings) -> Iterator[None]:
    """Turn every failure to reach Prefect inside the block into a FederationOperatorError."""
    try:
        yield
    except FAULTS as error:
        raise _named(settings, error) from None
    except RuntimeError as error:
        if not is_fault(error):
            raise
        raise _named(settings, error) from None
    except ExceptionGroup as group:
        reaching = group.subgroup(is_fault)
        if reaching is None:
            raise
        raise _named(settings, _first(reaching)) from None


def require_prefect(settings: FederationSettings) -> None:
    """Raise FederationOperatorError unless a Prefect server answers to the password within 10 s.

    What else may listen there is told apart by what it says of its version. Needs the environment
    of `use_prefect_of`.
    """
    user, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    bundle = settings.prefect.ca_bundle
    trusted = ssl.create_default_context(cafile=settings.path(bundle)) if bundle else True
    url = f"{settings.prefect.api_url.rstrip('/')}/admin/version"
    with prefect_answers(settings):
        answer = httpx.get(url, auth=(user, password), timeout=PROBE_SECONDS, verify=trusted)
        answer.raise_for_status()
        if _VERSION.fullmatch(answer.text.strip()) is None:
            raise json.JSONDecodeError("no version of Prefect", answer.text[:20], 0)


def _named(settings: FederationSettings, error: Exception) -> FederationOperatorError:
    where = f"api_url in {settings.home / SETTINGS_NAME}"
    use = command_line("consortia", "stack", "use", "--state", "STATE", "--home", settings.home)
    kind: type[FederationOperatorError] = FederationOperatorError
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        kind = PrefectUnavailableError if status in _PASSING else kind
        found = f"{status} {error.response.reason_phrase}"
        action = _check(where)
        if status in _UNAUTHORISED:
            auth = settings.prefect.auth
            file = settings.path(auth) if auth else "a file, and name it as auth beside api_url"
            action = f"write the user:password that the server was started with to {file}"
            action += f", or correct {where} if it is not Prefect that listens there"
    elif isinstance(error, FOREIGN):
        found, action = "one that is not Prefect's", _check(where)
    else:
        kind = PrefectUnavailableError
        found = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:200]}"
        action = f"start Prefect, as `consortia stack start` does, or correct {where}"
        action += f"; where the stack has other ports since, `{use}` does that"
    return kind(
        f"Prefect at {settings.prefect.api_url}", expected="an answer", found=found, action=action
    )


def is_fault(error: BaseException) -> bool:
    """Whether it is Prefect that did not answer, or that somebody else did."""
    unreached = isinstance(error, RuntimeError) and str(error).startswith(_UNREACHED)
    return unreached or isinstance(error, FAULTS)


def _check(where: str) -> str:
    return f"check that {where} is the address of a Prefect server and ends in /api"


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
