"""What unlearning takes, on one screen and as JSON."""

from typing import Any

from aggregator.unlearning.erasing import Considered
from aggregator.unlearning.erasure_plan import ErasurePlan
from aggregator.unlearning.hindrances import reservations


def plan_lines(considered: Considered) -> list[str]:
    """For a person."""
    plan = considered.plan
    silo, run = plan.asked.silo, plan.asked.run
    lines = [f"Taking {silo} out of {run}, exactly, by replay:"]
    if plan.again:
        lines += _found(plan, considered.replay_run)
    if plan.again and (told := reservations(plan)):
        lines += ["In what it will not be as if the silo had never been there:"]
        lines += [f"  - {sentence}" for sentence in told]
    for found in considered.hindrances:
        lines.append(f"It cannot be had: {found.reason} ({found.rule}). {_sentence(found.action)}")
    return lines


def plan_json(considered: Considered) -> dict[str, Any]:
    """For a program; digests in full."""
    plan = considered.plan
    return {
        "silo": plan.asked.silo,
        "run": plan.asked.run,
        "method": "replay",
        "counted_in": [_place(each.record.run, each.record.round) for each in plan.counted_in],
        "from": None if plan.first is None else _place(plan.first.record.run, _first(plan)),
        "revoked": list(plan.revoked),
        "starting_adapter": None if plan.start is None else plan.start.digest,
        "replay_run": considered.replay_run,
        "rounds": [
            {
                **_place(each.past.record.run, each.past.record.round),
                "silos": list(each.silos),
                "steps": each.cost.steps,
                "tokens": each.cost.tokens,
            }
            for each in plan.again
        ],
        "trainings": plan.trainings,
        "steps": plan.cost.steps,
        "tokens": plan.cost.tokens,
        "other_seeds": plan.has_other_seeds,
        "reservations": list(reservations(plan)),
        "hindrances": [vars(found) for found in considered.hindrances],
    }


def _found(plan: ErasurePlan, replay_run: str) -> list[str]:
    rounds = [each.past.record.round for each in plan.again]
    silos = sorted({silo for each in plan.again for silo in each.silos})
    counted = ", ".join(str(each.record.round) for each in plan.counted_in)
    start = plan.start
    origin = "the seed" if start is None else f"the adapter before, {start.digest[:12]}"
    seeds = "others than then" if plan.has_other_seeds else "those of then"
    return [
        f"  counted in     round {counted}; {len(plan.revoked)} files have its part: revoked",
        f"  goes on from   {origin}, with round {rounds[0]}",
        f"  again          rounds {_span(rounds)}, {plan.trainings} local trainings by "
        f"{', '.join(silos) or 'nobody'}",
        f"  that took      {plan.cost.steps:,} steps, {plan.cost.tokens:,} tokens",
        f"  random seeds   {seeds}",
        f"  as run         {replay_run}",
    ]


def _span(rounds: list[int]) -> str:
    return str(rounds[0]) if len(rounds) == 1 else f"{rounds[0]} to {rounds[-1]}"


def _first(plan: ErasurePlan) -> int:
    return 0 if plan.first is None else plan.first.record.round


def _place(run: str, number: int) -> dict[str, Any]:
    return {"run": run, "round": number}


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
