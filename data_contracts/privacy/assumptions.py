"""What a statement of differential privacy covers and what it does not, for whoever reads one.

The one list: the report's page, the model card and the documents give it.
"""

ASSUMPTIONS: tuple[str, ...] = (
    "Neighbouring data sets differ by one unit, a record or all records of a subject, which is "
    "there or is not; how many units there are is taken as known, to three digits, because each is "
    "drawn at a fixed rate.",
    "Of one institution: populations of different institutions are taken to share nobody, so that "
    "the published model has the largest epsilon of any of them.",
    "Training records alone are covered. Losses on held-out records, outcomes of rules, and counts "
    "of records and licences leave without noise, unless the institution's data contract keeps "
    "them in; so does that an institution refuses, or fails, after its training began.",
    "Rounds whose plan asks for it are covered: what an adapter held before the first of them is "
    "not.",
    "Noise is drawn as floating-point numbers, which hide less than real ones would, by an amount "
    "that is not in epsilon.",
    "How long a training takes, and what memory it takes, is not hidden from who watches storage "
    "or the machine.",
)
OFF: tuple[str, ...] = (
    "losses of training steps, in a submission and in a status",
    "tokens that were trained on: every institution counts the same",
    "seconds of training",
    "losses of adapters that were trained without noise: silo-only and personal ones",
    "speed and memory in a status",
)
"""What a silo keeps in under a plan that asks for privacy, beside what its contract keeps in."""
