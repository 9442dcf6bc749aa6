"""What Prefect's client raises, as one message for the federation operator."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from aggregator.settings import SETTINGS_NAME, FederationSettings
from data_contracts.errors import FederationOperatorError

FAULTS = (httpx.HTTPError, httpx.InvalidURL, json.JSONDecodeError)
"""No way to Prefect, an answer that refuses, and an answer that is somebody else's."""

_UNREACHED = "Failed to reach API"
"""How Prefect says it where it asks for the server's version first."""

_UNAUTHORISED = (401, 403)


@contextmanager
def prefect_answers(settings: FederationSettings) -> Iterator[None]:
    """Turn every failure to reach Prefect inside the block into a FederationOperatorError."""
    try:
        yield
    except FAULTS as error:
        raise _named(settings, error) from None
    except RuntimeError as error:
        if not str(error).startswith(_UNREACHED):
            raise
        raise _named(settings, error) from None
    except ExceptionGroup as group:
        reaching = group.subgroup(FAULTS)
        if reaching is None:
            raise
        raise _named(settings, _first(reaching)) from None


def _named(settings: FederationSettings, error: Exception) -> FederationOperatorError:
    where = f"api_url in {settings.home / SETTINGS_NAME}"
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        found = f"{status} {error.response.reason_phrase}"
        action = _check(where)
        if status in _UNAUTHORISED:
            auth = settings.prefect.auth
            file = settings.path(auth) if auth else "a file, and name it as auth beside api_url"
            action = f"write the user:password that the server was started with to {file}"
    elif isinstance(error, json.JSONDecodeError):
        found, action = "one that is not Prefect's", _check(where)
    else:
        found = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:200]}"
        action = f"start Prefect, as `consortia stack start` does, or correct {where}"
    return FederationOperatorError(
        f"Prefect at {settings.prefect.api_url}", expected="an answer", found=found, action=action
    )


def _check(where: str) -> str:
    return f"check that {where} is the address of a Prefect server and ends in /api"


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
