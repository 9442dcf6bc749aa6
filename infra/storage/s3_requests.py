"""What every request of ours carries, or does not do, beyond what botocore decides.

A PUT into a bucket whose Object Lock retains by default is refused by AWS, and by what follows it,
without a Content-MD5 or a checksum. Content-MD5 is the one that every S3 store of any age knows;
against tampering the signature covers the body's SHA-256 as before. No answer sends a request to
another region: the endpoint is the operator's choice, and a storage that keeps redirecting would
have botocore follow until the interpreter gives up.
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from data_contracts.errors import StorageError
from infra.storage.credential_file import CredentialFile

_EXPECTED: ContextVar[str | None] = ContextVar("expected digest", default=None)
_SHA256 = re.compile(r"[0-9a-f]{64}")
REPEATED = 3
"""How often a request is repeated whose credential is replaced again and again."""
NOT_ACCEPTED = (400, 401, 403)
"""Statuses with which storages refuse who asks; a HEAD has no more than them."""

WRITES = ("PutObject", "UploadPart", "PutObjectRetention")


def prepare_requests(client: Any) -> None:
    """Make each request of a botocore S3 client carry what storages ask for."""
    for operation in WRITES:
        client.meta.events.register(f"before-call.s3.{operation}", _add_digest)
    client.meta.events.register("before-call.s3", _follow_no_redirect)
    client.meta.events.register("before-send.s3.PutObject", _require_named_digest)


def sign_again_after_a_change(client: Any, credential: CredentialFile) -> None:
    """Repeat a refused request where its credential was replaced after it was signed.

    A half-written file may be a whole one with a part missing, and whoever replaces a credential
    may withdraw the old one within the moment that a request is under way, and the next one too.
    """

    def seconds_to_wait(response: Any, attempts: int, **_: object) -> float | None:
        is_refused = response is not None and response[0].status_code in NOT_ACCEPTED
        again = is_refused and attempts <= REPEATED and credential.has_changed()
        return 0.0 if again else None

    client.meta.events.register("needs-retry.s3", seconds_to_wait)


@contextmanager
def sent_only_as(digest: str) -> Iterator[None]:
    """Inside the block a PUT leaves only if the SHA-256 of its body is `digest`, else StorageError.

    It is compared with what the signature says of the body, which takes no other pass over it.
    """
    token = _EXPECTED.set(digest)
    try:
        yield
    finally:
        _EXPECTED.reset(token)


def _add_digest(params: dict[str, Any], **_: object) -> None:
    # botocore wraps the bytes that are put, and leaves those that it has written itself.
    body = params["body"]
    data = body if isinstance(body, bytes) else body.getbuffer()
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = b64encode(digest).decode()


def _require_named_digest(request: Any, **_: object) -> None:
    expected = _EXPECTED.get()
    if expected is None:
        return
    digest = request.headers.get("X-Amz-Content-SHA256", b"")
    found = digest.decode() if isinstance(digest, bytes) else digest
    if _SHA256.fullmatch(found) is None:
        found = hashlib.sha256(request.body).hexdigest()
    if found != expected:
        raise StorageError(
            f"upload of blob {expected[:16]}",
            expected=f"bytes with SHA-256 {expected}",
            found=f"SHA-256 {found}",
            action="nothing was published; create the file again and let the step run again",
        )


def _follow_no_redirect(context: dict[str, Any], **_: object) -> None:
    # botocore asks this mark whether it has followed already.
    context.get("s3_redirect", {})["redirected"] = True
