"""In which layout adapters travel, where that is not the one that silos train.

What a round starts from and what it merges into has the exchanged layout; what a silo sends has the
submitted one. Under most rules both are the layout itself.
"""

from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.merge_spec import MergeRule
from data_contracts.protocol.records.training_recipe import TrainedFactors


def exchanged_layout(rule: MergeRule, layout: AdapterLayout) -> AdapterLayout:
    """That of starting adapters and candidates where silos train `layout`."""
    return layout.a_alone if rule == "shared_a" else layout


def submitted_layout(
    rule: MergeRule, trained: TrainedFactors, layout: AdapterLayout
) -> AdapterLayout:
    """That of what silos send in a round in which they train `trained` of `layout`."""
    return layout.cores if trained == "core" else exchanged_layout(rule, layout)


def trained_layout(trained: TrainedFactors, layout: AdapterLayout) -> AdapterLayout:
    """That of the file which a training of `trained` of `layout` leaves."""
    return layout.cores if trained == "core" else layout
