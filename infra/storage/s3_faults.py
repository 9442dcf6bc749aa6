"""What an S3 client can raise, told apart by who has to act: one StorageError for each cause.

The storage is away for a time (`StorageUnavailableError`), it does not accept who asks
(`UnusableCredentialError`), it says no (`AccessDeniedError`), or it answers with what is no answer.
Nothing of a secret gets into a message.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from botocore import exceptions as botocore_errors
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from data_contracts.errors import StorageError
from infra.clock import ALLOWED_SKEW
from infra.storage.object_store import (
    AccessDeniedError,
    RefusedRequestError,
    StorageUnavailableError,
    UnusableCredentialError,
)

PASSING = (404, 408, 409, 412, 429)
"""Statuses that are about a moment or a missing thing, and not about the request."""
BUSY = (408, 429)
"""Statuses below 500 of a storage that cannot answer just now."""
NEVER = (501, 505)
"""Statuses from 500 of a storage that cannot answer such a request at any time."""
NO_ANSWER = (
    botocore_errors.ConnectionError,
    botocore_errors.HTTPClientError,
    botocore_errors.IncompleteReadError,
    HTTPError,
    ConnectionError,
    TimeoutError,
)
"""What the client raises when no answer came, or only a part of one."""
LASTING = (botocore_errors.SSLError, botocore_errors.InvalidProxiesConfigError)
"""What stays so until somebody changes it, although no answer came."""
SKEWED = ("RequestTimeTooSkewed", "RequestInTheFuture", "RequestExpired")
OTHER_REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "301")
UNREADABLE_ANSWERS = (ResponseParserError, ValueError, LookupError, TypeError, AttributeError)
"""What botocore, and whoever reads its answers, raises on bytes that are no answer of S3."""
CLIENT_FAULTS = (ClientError, BotoCoreError, HTTPError, OSError, *UNREADABLE_ANSWERS)

ExpectedAndAction = tuple[str, str]

CREDENTIAL_FAULTS: dict[str, ExpectedAndAction] = {
    "InvalidAccessKeyId": (
        "an access key that the storage knows",
        "check access_key; the storage operator says whether it was withdrawn",
    ),
    "SignatureDoesNotMatch": (
        "a request signed with the secret of its access key",
        "check secret_key; if it is right, something on the way changes requests: check the proxy",
    ),
    "ExpiredToken": (
        "a session token that is still valid",
        "renew session_token with its key and secret, or the login of the profile",
    ),
    "InvalidToken": (
        "a session token that the storage knows and that belongs to its access key",
        "copy access_key, secret_key and session_token again, all from one answer",
    ),
}
_SAME_FAULT = {
    "ExpiredTokenException": "ExpiredToken",
    "TokenRefreshRequired": "ExpiredToken",
    "InvalidSecurity": "InvalidToken",
    "InvalidTokenId": "InvalidToken",
    "InvalidClientTokenId": "InvalidToken",
}

_CONNECTION_FAULTS: tuple[tuple[tuple[type[Exception], ...], ExpectedAndAction], ...] = (
    (
        (botocore_errors.ProxyConnectionError, botocore_errors.InvalidProxiesConfigError),
        (
            "a way to it through the proxy",
            "check proxy in [storage], or HTTPS_PROXY and NO_PROXY, with whoever runs the proxy",
        ),
    ),
    (
        (botocore_errors.SSLError,),
        (
            "a certificate that this machine trusts",
            "name the authority's file in ca_bundle; if it is right, the storage operator checks "
            "name and dates of the certificate",
        ),
    ),
    (
        (botocore_errors.ConnectTimeoutError, botocore_errors.EndpointConnectionError),
        (
            "an answer",
            "check that it runs and that address, proxy and ca_bundle are right",
        ),
    ),
)
_LOCAL_CREDENTIAL_FAULTS = (
    botocore_errors.NoCredentialsError,
    botocore_errors.PartialCredentialsError,
    botocore_errors.CredentialRetrievalError,
    botocore_errors.ProfileNotFound,
    botocore_errors.UnauthorizedSSOTokenError,
    botocore_errors.SSOError,
    botocore_errors.ConfigParseError,
)


@dataclass(frozen=True)
class AskedPlace:
    """What was asked for, and as whom, in words without a secret."""

    endpoint_url: str
    bucket: str
    key: str
    asked_as: str

    def __str__(self) -> str:
        return f"{self.endpoint_url}/{self.bucket}/{self.key}"


def storage_fault(error: Exception, place: AskedPlace) -> StorageError:
    """The StorageError for what the client raised, one of CLIENT_FAULTS."""
    if isinstance(error, ClientError):
        return _from_answer(error, place)
    if isinstance(error, _LOCAL_CREDENTIAL_FAULTS):
        return _no_credential(error, place)
    if isinstance(error, UNREADABLE_ANSWERS):
        return StorageError(
            str(place),
            expected="an answer of S3",
            found=f"one that cannot be read: {type(error).__name__}: {_first_line(str(error))}",
            action="check that this is an S3 endpoint and that no proxy changes its answers; it is "
            "asked again",
        )
    return _unreached(error, place)


def status_of(error: ClientError) -> int:
    """HTTP status of an error answer, 0 when unknown."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def error_code(error: ClientError) -> str:
    """S3 error code of an error answer, such as NoSuchKey."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _unreached(error: Exception, place: AskedPlace) -> StorageError:
    expected, action = (
        "an answer",
        "check that it runs and that address, proxy and ca_bundle are right",
    )
    for kinds, said in _CONNECTION_FAULTS:
        if isinstance(error, kinds):
            expected, action = said
            break
    comes_back = isinstance(error, NO_ANSWER) and not isinstance(error, LASTING)
    kind = StorageUnavailableError if comes_back else StorageError
    return kind(
        f"object storage at {place.endpoint_url}, not reachable",
        expected=expected,
        found=f"{type(error).__name__}: {_first_line(str(error))}",
        action=action,
    )


def _no_credential(error: Exception, place: AskedPlace) -> StorageError:
    return UnusableCredentialError(
        f"credential for {place.endpoint_url}",
        expected=f"one from {place.asked_as}",
        found=f"{type(error).__name__}: {_first_line(str(error))}",
        action="log in again or correct the profile, as the user that runs this process",
    )


def _from_answer(error: ClientError, place: AskedPlace) -> StorageError:
    code, status = error_code(error), status_of(error)
    skew = _clock_difference(error)
    if code in SKEWED or (status == 403 and abs(skew) > ALLOWED_SKEW):
        return _skewed(code, status, skew, place)
    fault = CREDENTIAL_FAULTS.get(_SAME_FAULT.get(code, code))
    if fault is not None:
        expected, action = fault
        found = f"{status} {code}, as {place.asked_as}"
        return UnusableCredentialError(str(place), expected=expected, found=found, action=action)
    if code in OTHER_REGION:
        return _other_region(error, place)
    if status in (401, 403):
        return _denied(error, place)
    if code == "NoSuchBucket":
        return _no_bucket(place)
    return _refused(error, place)


def _skewed(code: str, status: int, skew: timedelta, place: AskedPlace) -> StorageError:
    # Without a Date in the answer nobody can say by how much.
    minutes = round(skew.total_seconds() / 60)
    side = "ahead of" if minutes > 0 else "behind"
    by = f"; this machine's clock is {abs(minutes)} min {side} it" if minutes else ""
    return UnusableCredentialError(
        str(place),
        expected="the storage's time and this machine's within a few minutes",
        found=f"{status} {code}{by}",
        action="set this machine's clock by NTP; if it is right, the storage operator sets theirs",
    )


def _other_region(error: ClientError, place: AskedPlace) -> StorageError:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    said = error.response.get("Error", {})
    region = said.get("Region") or headers.get("x-amz-bucket-region")
    return StorageError(
        str(place),
        expected="the region of this bucket in the settings",
        found=f"{status_of(error)} {error_code(error)}",
        action=f"set region{f' = {str(region)[:40]!r}' if region else ''} in [storage], and the "
        "endpoint of that region",
    )


def _denied(error: ClientError, place: AskedPlace) -> StorageError:
    return AccessDeniedError(
        str(place),
        expected=f"the right to {error.operation_name} as {place.asked_as}",
        found=f"{status_of(error)} {error_code(error)}",
        action="the storage operator grants it per bucket, as `consortia storage policy` prints",
    )


def _no_bucket(place: AskedPlace) -> StorageError:
    return StorageError(
        str(place),
        expected=f"a bucket named {place.bucket}",
        found="no such bucket",
        action="check the federation id and the endpoint, or have the bucket created",
    )


def _refused(error: ClientError, place: AskedPlace) -> StorageError:
    code, status = error_code(error), status_of(error)
    message = _first_line(str(error.response.get("Error", {}).get("Message", "")))
    kind: type[StorageError] = StorageError
    if status in BUSY or (status >= 500 and status not in NEVER):
        kind = StorageUnavailableError
    elif 400 <= status < 500 and status not in PASSING:
        kind = RefusedRequestError
    return kind(
        str(place),
        expected=f"{error.operation_name} to succeed",
        found=f"{status} {code}: {message}",
        action="look into the log of the object storage at this time; the step can run again",
    )


def _clock_difference(error: ClientError) -> timedelta:
    """How far this machine's clock is ahead of the Date of an answer; 0 where it has none."""
    metadata = error.response.get("ResponseMetadata", {})
    try:
        answered = parsedate_to_datetime(metadata.get("HTTPHeaders", {}).get("date", ""))
    except ValueError:
        return timedelta()
    return datetime.now(UTC) - answered.replace(tzinfo=answered.tzinfo or UTC)


def _first_line(text: str) -> str:
    return text.splitlines()[0][:200] if text.strip() else "no message"
