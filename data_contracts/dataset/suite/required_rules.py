"""The rules that every verdict must speak about, whatever the contract adds.

A verdict that passes without them has not asked the questions that this federation asks.
"""

REQUIRED_RULES = frozenset(
    {
        "contract.current",
        "data.available",
        "records.readable",
        "records.minimum",
        "cohort.minimum",
        "licence.allowed",
        "opt_out.none",
        "copyright.overlap",
        "personal_data.limit",
        "split.no_leakage",
    }
)
