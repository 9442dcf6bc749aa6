"""Who asks the buckets for `consortia storage usage | prune`, with which right."""

from pathlib import Path

from aggregator.coordinator import (
    CONTRACTS_DIRECTORY,
    COORDINATOR_KEY,
    FEED_DIRECTORY,
    REPORTS_DIRECTORY,
    Coordinator,
)
from aggregator.upkeep.storage_room import Opener
from data_contracts.errors import FederationOperatorError
from infra.disk.display import DiskPart
from infra.stack.attached_storage import attach_storage
from infra.stack.identities import ADMIN
from infra.storage.bucket_contents import S3Contents
from infra.storage.config import s3_settings
from infra.storage.s3_client import S3Settings

COORDINATOR_DISK = (
    DiskPart(
        "workspace", ("workspace",), "[disk] keep_rounds, and what the next round starts from"
    ),
    DiskPart("reports", (str(REPORTS_DIRECTORY),), "until you remove them"),
    DiskPart("published adapter", ("published",), "the newest"),
    DiskPart("feed", (str(FEED_DIRECTORY),), "always"),
    DiskPart(
        "contracts and keys", (str(CONTRACTS_DIRECTORY), str(COORDINATOR_KEY.parent)), "always"
    ),
)


def coordinators_view(c: Coordinator) -> Opener:
    """Buckets with the coordinator's own credential, which can list and no more."""
    own = s3_settings(c.settings.storage, c.settings.home)
    return lambda name: S3Contents(own, name)


def operators_view(c: Coordinator, credentials: Path | None, stack: Path | None) -> Opener:
    """Buckets with the credential of a storage operator: of a file, or of the embedded stack."""
    operator = _operator(c, credentials, stack)
    return lambda name: S3Contents(operator, name)


def _operator(c: Coordinator, credentials: Path | None, stack: Path | None) -> S3Settings:
    if stack is not None:
        return attach_storage(stack).settings_for(ADMIN)
    if credentials is None:
        raise FederationOperatorError(
            "storage prune",
            expected="a credential that may delete, which the coordinator's may not",
            found="none",
            action="give --credentials FILE of the storage's operator (rights: `consortia storage "
            "prune-policy`), or --stack for the embedded storage",
        )
    from_file = {"credential_source": "file", "credentials": credentials.resolve(), "profile": None}
    section = c.settings.storage.model_copy(update=from_file)
    return s3_settings(section, c.settings.home)
