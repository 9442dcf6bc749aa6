"""What an audit of a report cannot show, and what a report says nothing about: one list each.

The page and `consortia report verify` take them from here, so that neither promises more than the
other. A name is the claim's; the text is a sentence that goes on from "not checked:".
"""

from data_contracts.protocol.records.round_plan import TrustMode

UNCHECKED: tuple[tuple[str, str], ...] = (
    (
        "adapter gate",
        "the contents of each submitted adapter were judged by the coordinator; the adapters are "
        "not in the bundle",
    ),
    ("no silo signed twice", "a second record in a slot would lie in storage, not in the bundle"),
    (
        "no silo left out wrongly",
        "that a silo took away what it had signed, or that its key was revoked, is the "
        "coordinator's word",
    ),
    (
        "merge arithmetic",
        "merging again needs the local adapters of the admitted silos, which stay in the ledger",
    ),
    (
        "evidence under lock",
        "close, decision and report name the versions; whether the storage still keeps them locked "
        "can be asked there only",
    ),
    (
        "what institutions say of their data",
        "counts, licences, losses, steps and tokens are what each institution found and signed; "
        "nobody else saw the data, or the training",
    ),
)

READABLE = (
    "Confidentiality of the institutions' adapters towards the coordinator and whoever runs the "
    "storage: both could read them."
)
ENCRYPTED = (
    "Confidentiality of the institutions' adapters towards the coordinator, which could read them; "
    "in storage they were encrypted."
)
MASKED = (
    "What an institution's change was: behind masks its size is its own word, a copy or a harmful "
    "change cannot be seen, and only the losses on held-out data stand in its way. What can be "
    "learned from the sum, and from the sums of several rounds, is no secret."
)
NOT_PRIVATE = (
    "Whether single records can be drawn out of the adapter again: it was trained without "
    "differential privacy."
)
PRIVATE = (
    "Whether the noise was added, how many units an institution has, and what it had spent before: "
    "that is its own word. What differential privacy covers, and what not, is said above."
)
NOT_COVERED: tuple[str, ...] = (
    "What the base model was trained on before this federation.",
    NOT_PRIVATE,
    READABLE,
    "An institution that sends a harmful but well-formed adapter within the spread of the others.",
    "Personal data that no pattern, checksum or context gives away, such as a rare name alone.",
    "How good the model's answers are: the losses compare its predictions with held-out answers "
    "and are no clinical, legal or financial validation.",
    "Progress messages (phase, step, speed, losses of training steps) that an institution lets out "
    "while it works: they are overwritten and are no evidence.",
)


def not_covered(
    trust_mode: TrustMode, *, is_encrypted: bool, is_private: bool = False
) -> tuple[str, ...]:
    """What a report of a round in this mode says nothing about, where adapters were encrypted in
    storage or not, and trained with differential privacy or not."""
    visible = ENCRYPTED if is_encrypted else READABLE
    instead = MASKED if trust_mode == "confidential" else visible
    replaced = {READABLE: instead, NOT_PRIVATE: PRIVATE if is_private else NOT_PRIVATE}
    return tuple(replaced.get(it, it) for it in NOT_COVERED)
