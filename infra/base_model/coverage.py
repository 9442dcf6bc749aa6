"""Which share of a base model's weights an adapter acts on, in words; from headers alone."""

from collections.abc import Iterable

from data_contracts.protocol.records.adapter_layout import AdapterTarget
from infra.base_model.folder_check import elements, expert_elements
from infra.base_model.weight_files import Weights


def coverage_words(weights: Weights, targets: Iterable[AdapterTarget]) -> str:
    """As in "LoRA on 14 modules, with 70.2 % of the model's weights"; and what of a mixture's
    experts is left out, because their weights are in no linear module. Tensors that are trained
    whole are told beside it: they are of a head that the model lacks."""
    given = list(targets)
    listed = [target for target in given if target.whole is None]
    adapted = sum(target.in_features * target.out_features for target in listed)
    words = f"LoRA on {len(listed)} modules, with {_share(adapted, weights)} of the model's weights"
    whole = sum(t.in_features * t.out_features for t in given if t.whole is not None)
    if whole:
        words += f"; {len(given) - len(listed)} tensors of {whole:,} numbers trained whole"
    experts = expert_elements(weights)
    covered = sum(t.in_features * t.out_features for t in listed if ".experts." in t.module)
    if covered < experts:
        left = _share(experts - covered, weights)
        words += f"; without experts, which have {left} of them and stay as they are"
    return words


def _share(some: int, weights: Weights) -> str:
    return f"{100 * some / max(1, elements(weights)):.1f} %"
