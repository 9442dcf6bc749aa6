"""What stands behind an adapter, as a tree for a person and as JSON for a program."""

from typing import Any

from rich.text import Text
from rich.tree import Tree

from aggregator.lineage.lineage import Lineage, LineageStep
from data_contracts.protocol.records.round_report import SiloSummary

SHOWN = 12


def lineage_tree(lineage: Lineage) -> Tree:
    """Base model, then a branch for each round, newest first, with the silos that counted."""
    own = lineage.own.past.record
    tree = Tree(Text(f"adapter {lineage.digest}"))
    if (told := _revoked(lineage, lineage.digest)) is not None:
        tree.add(Text(told, "bold red"))
    model = own.base_model
    tree.add(Text(f"base model {model.name}, {model.licence}, {model.digest[:SHOWN]}"))
    report = lineage.own.report
    licence = None if report is None else report.record.adapter_licence
    if licence is not None:
        tree.add(Text(f"may be passed on under {licence.expression}"))
    for silo, rounds in lineage.rounds_of.items():
        count = f"{len(rounds)} round{'s' if len(rounds) > 1 else ''}"
        tree.add(Text(f"has a part of {silo}, from {count}{_private_words(lineage, silo)}"))
    for step in lineage.steps:
        _add_round(tree, lineage, step)
    tree.add(Text(f"the seed {lineage.steps[-1].past.record.layout.seed}"))
    return tree


def lineage_json(lineage: Lineage) -> dict[str, Any]:
    """Digests in full; `rounds` newest first, each with what it went on from."""
    model = lineage.own.past.record.base_model
    report = lineage.own.report
    licence = None if report is None else report.record.adapter_licence
    return {
        "adapter": lineage.digest,
        "revoked_by_entry": _entry(lineage, lineage.digest),
        "base_model": {"name": model.name, "licence": model.licence, "digest": model.digest},
        "licence": None if licence is None else licence.expression,
        "silos": {
            silo: [{"run": past.record.run, "round": past.record.round} for past in rounds]
            for silo, rounds in lineage.rounds_of.items()
        },
        "epsilons": {
            silo: None if epsilon is None else str(epsilon)
            for silo, epsilon in ((s, lineage.epsilon_of(s)) for s in lineage.rounds_of)
        },
        "rounds": [_round_json(lineage, step) for step in lineage.steps],
    }


def _private_words(lineage: Lineage, silo: str) -> str:
    """What all trainings behind the adapter say of one unit of a silo's, also of one that was not
    in the last round."""
    epsilon = lineage.epsilon_of(silo)
    return "" if epsilon is None else f", differentially private with an epsilon of {epsilon}"


def _add_round(tree: Tree, lineage: Lineage, step: LineageStep) -> None:
    record = step.past.record
    begun = f"adapter {step.adapter[:SHOWN]}"
    branch = tree.add(Text(f"{record.run}, round {record.round}: {begun}, {record.merge.rule}"))
    if (told := _revoked(lineage, step.adapter)) is not None and step is not lineage.own:
        branch.add(Text(told, "bold red"))
    if step.report is None:
        silos = ", ".join(sorted(step.past.counted))
        branch.add(Text(f"counted: {silos}; its report is no longer in storage"))
    for silo in step.silos:
        branch.add(Text(_silo_line(silo)))


def _silo_line(silo: SiloSummary) -> str:
    share = f"{float(silo.weight_share):.0%} of the weight"
    line = f"{silo.silo}: {share}, contract {silo.contract_digest[:SHOWN]}"
    if silo.privacy is None:
        return f"{line}, {silo.tokens:,} tokens"
    return f"{line}, differentially private"


def _round_json(lineage: Lineage, step: LineageStep) -> dict[str, Any]:
    record = step.past.record
    return {
        "run": record.run,
        "round": record.round,
        "plan": step.past.plan.digest,
        "report": None if step.report is None else step.report.digest,
        "adapter": step.adapter,
        "revoked_by_entry": _entry(lineage, step.adapter),
        "goes_on_from": sorted(step.past.starts),
        "seed": record.layout.seed,
        "merge": record.merge.rule,
        "counted": sorted(step.past.counted),
        "silos": [
            {
                "silo": silo.silo,
                "contract": silo.contract_digest,
                "weight_share": silo.weight_share,
                "tokens": silo.tokens,
                "is_private": silo.privacy is not None,
            }
            for silo in step.silos
        ],
    }


def _entry(lineage: Lineage, digest: str) -> int | None:
    erasure = lineage.erasures.get(digest)
    return None if erasure is None else erasure.record.feed_number


def _revoked(lineage: Lineage, digest: str) -> str | None:
    erasure = lineage.erasures.get(digest)
    if erasure is None:
        return None
    record = erasure.record
    return f"revoked by feed entry {record.feed_number}: the part of {record.silo} is taken out"
