"""Who may do what in the storage, as IAM policies: of AWS, and of the embedded storage alike.

A silo reads the plans and writes its own inbox; it deletes nothing and locks nothing, so what lies
in its inbox is what it put there. The coordinator reads the inboxes and locks versions in them; it
writes none, and neither deletes a version nor passes over a lock. Erasing a locked version takes a
third credential with s3:BypassGovernanceRetention, which no process of the federation has. Removing
what no record needs takes one that may delete, which a person gives to that one command.
"""

import json
from typing import Any

from data_contracts.protocol.bucket_layout import inbox_bucket, ledger_bucket, plans_bucket

_READ = ("s3:GetObject", "s3:GetObjectVersion")
_WRITE = ("s3:PutObject", "s3:AbortMultipartUpload")
_LOCK = ("s3:GetObjectRetention", "s3:PutObjectRetention")


def coordinator_policy(federation: str) -> str:
    """Write plans and ledger, read and lock the inboxes. The same however many silos there are:
    no federation's name contains `-inbox-`, so the pattern matches its own inboxes only."""
    own, inboxes = [plans_bucket(federation), ledger_bucket(federation)], f"{federation}-inbox-*"
    return _document(
        _allow(("s3:ListBucket",), [*own, inboxes]),
        _allow(_READ, [f"{name}/*" for name in (*own, inboxes)]),
        _allow(_WRITE, [f"{name}/*" for name in own]),
        _allow(_LOCK, [f"{inboxes}/*"]),
    )


def silo_policy(federation: str, silo: str) -> str:
    """Read plans; read and write the silo's own inbox; see nothing of another silo."""
    plans, inbox = plans_bucket(federation), inbox_bucket(federation, silo)
    return _document(
        _allow(("s3:ListBucket",), [plans, inbox]),
        _allow(_READ, [f"{plans}/*", f"{inbox}/*"]),
        _allow(_WRITE, [f"{inbox}/*"]),
    )


def pruning_policy(federation: str) -> str:
    """List and delete in the federation's buckets, for the person who runs `storage prune`.

    It passes over no lock, and no process of the federation has it.
    """
    names = [plans_bucket(federation), ledger_bucket(federation), f"{federation}-inbox-*"]
    return _document(
        _allow(("s3:ListBucket", "s3:ListBucketVersions"), names),
        _allow(
            (*_READ, "s3:GetObjectRetention", "s3:DeleteObject", "s3:DeleteObjectVersion"),
            [f"{name}/*" for name in names],
        ),
    )


def _allow(actions: tuple[str, ...], resources: list[str]) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": [f"arn:aws:s3:::{resource}" for resource in resources],
    }


def _document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)}, indent=2)
