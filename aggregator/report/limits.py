"""What an audit of a report cannot show, and what a report says nothing about: one list each.

The page and `consortia report verify` take them from here, so that neither promises more than the
other. A name is the claim's; the text is a sentence that goes on from "not checked:".
"""

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
NOT_COVERED: tuple[str, ...] = (
    "What the base model was trained on before this federation.",
    "Whether single records can be drawn out of the adapter again: it was trained without "
    "differential privacy.",
    READABLE,
    "An institution that sends a harmful but well-formed adapter within the spread of the others.",
    "Personal data that no pattern, checksum or context gives away, such as a rare name alone.",
    "How good the model's answers are: the losses compare its predictions with held-out answers "
    "and are no clinical, legal or financial validation.",
    "Progress messages (phase, step, speed, losses of training steps) that an institution lets out "
    "while it works: they are overwritten and are no evidence.",
)


def not_covered(*, is_encrypted: bool) -> tuple[str, ...]:
    """What a report says nothing about, where adapters were encrypted in storage or not."""
    return tuple(ENCRYPTED if it is READABLE and is_encrypted else it for it in NOT_COVERED)
