"""The membership that was handed over out of band: where all trust starts.

Its authenticity comes from the hand-over (people compare fingerprints); what is checked here is
that it is whole, signed by a threshold of the root keys that it names itself.
"""

from pathlib import Path

from data_contracts.errors import ConsortiaError, UntrustedInputError
from data_contracts.protocol.envelope import Quorum, Verified, unverified_record, verify_quorums
from data_contracts.protocol.records import Membership


def open_trust_anchor(envelope: bytes) -> Verified[Membership]:
    """Verify a membership against its own root keys; raises UntrustedInputError."""
    named = unverified_record(envelope, Membership)
    return verify_quorums(
        envelope,
        Membership,
        [
            Quorum(frozenset(named.root_keys), named.root_threshold),
            Quorum(frozenset(named.retired_root_keys), 0),
        ],
    )


def load_trust_anchor(path: Path) -> Verified[Membership]:
    """`open_trust_anchor` of a local file."""
    try:
        return open_trust_anchor(path.read_bytes())
    except UntrustedInputError as error:
        raise error.in_file(path) from None
    except OSError as error:
        raise ConsortiaError(
            f"pinned membership {path}",
            expected="the membership file that the federation operator handed over",
            found=error.strerror or str(error),
            action="copy the file here and compare its fingerprints by telephone",
        ) from None
