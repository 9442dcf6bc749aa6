"""What silos sent encrypted, as blobs that open on their way from storage.

The sealed key of a submission is opened first, and what is in it has to be of that silo and that
plan. A silo whose key or blob cannot be opened is told by the rule that its submission is rejected
by; that the coordinator lacks a key of its own ends nobody's part but the command.
"""

import base64

from aggregator.coordinator import Coordinator
from aggregator.evidence.attempt_keys import attempt_key
from aggregator.evidence.spool import Blob, opened_directory, own_blob
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records import RoundPlan, Submission
from data_contracts.protocol.records.sealed_key import SealedKey
from infra.disk.blob_files import UnopenedError
from infra.encryption.encrypted_files import opener, unsealed
from infra.encryption.identities import Identities, Identity, parse_identity

PRIVATE_DIRECTORY = 0o700


def submitted_blob(c: Coordinator, plan: RoundPlan, submission: Submission) -> Blob:
    """The blob that a submission on a plan names.

    Raises UntrustedInputError (`blob.sealed_key`, `blob.sealed_for_another`) where its key does not
    open or is not of this silo and plan, and FederationOperatorError as `attempt_key` does.
    """
    if plan.encryption is None or submission.sealed_key is None:
        return own_blob(c, submission.adapter)
    key = attempt_key(c, plan.run, plan.round, plan.encryption)
    identity = open_sealed_key(submission, c.identities, [key])
    directory = opened_directory(c, submission.plan_digest)
    directory.mkdir(parents=True, exist_ok=True, mode=PRIVATE_DIRECTORY)
    name = f"{submission.silo}.{submission.adapter.stored.digest}.safetensors"
    return Blob(submission.adapter, directory / name, opener([identity]))


def open_sealed_key(
    submission: Submission, of_coordinator: Identities, of_attempt: Identities
) -> Identity:
    """The identity of a submission's blob; raises UntrustedInputError."""
    try:
        outer = base64.b64decode(submission.sealed_key or "", validate=True)
        inner = unsealed(unsealed(outer, of_coordinator), of_attempt)
        sealed = SealedKey.model_validate_json(inner)
        identity = parse_identity(sealed.identity)
    except (UnopenedError, ValueError) as error:
        # Nothing of a text that was opened may be in a message.
        why = str(error) if isinstance(error, UnopenedError) else "no key of a blob"
        raise _refused(submission, "a sealed key that opens", why, "sealed_key") from None
    found = (sealed.silo, sealed.plan_digest)
    if found != (submission.silo, submission.plan_digest):
        whose = f"one of {sealed.silo} for plan {sealed.plan_digest[:16]}"
        raise _refused(submission, "its own key, for this plan", whose, "sealed_for_another")
    return identity


def _refused(submission: Submission, expected: str, found: str, rule: str) -> UntrustedInputError:
    return UntrustedInputError(
        f"adapter of {submission.silo}",
        expected=expected,
        found=found,
        action="it is rejected; its agent encrypts the next one anew",
        rule=f"blob.{rule}",
    )
