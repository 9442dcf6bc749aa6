"""`silo-agent plan`: what training takes of a process's memory, what was chosen, and why.

One screen: the parts at the fullest moment, what there is, the choice with its reason, and what the
other stages would take. Nothing is loaded.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.model_family import FamilyTask
from infra import command_values as values
from infra.base_model.folder_check import likely_family
from infra.clock import SystemClock
from infra.terminal import plain_console, say
from silo_agent.command_options import HERE, Home
from silo_agent.config import SiloConfig, TrainingSection, load_config
from silo_agent.policy.policy_file import Policy, read_policy, require_policy
from silo_agent.readiness.base_model import known_modules
from silo_agent.readiness.facts import look
from silo_agent.readiness.memory import by_hand, choice_words, there_is
from silo_agent.training.engine_spec import Stage
from silo_agent.training.memory_plan import MemoryPlan, memory_plan, stages_of
from silo_agent.training.memory_room import gigabytes
from silo_agent.training.own_steps import steps_words
from silo_agent.training.precision import held_words
from silo_agent.training.rank_work import Choice

NAME_WIDTH = 48
console = plain_console()

Length = Annotated[
    int | None,
    typer.Option(min=16, max=1_000_000, help="Tokens of a sequence, in the place of a plan's."),
]
Rank = Annotated[int, typer.Option(min=1, max=1024, help="Rank of the adapter, with --length.")]
Sequences = Annotated[
    int, typer.Option(min=1, max=100_000, help="Sequences of a step, with --length.")
]
Steps = Annotated[int, typer.Option(min=1, max=1_000_000, help="Steps of a round, with --length.")]
Model = Annotated[
    Path | None,
    typer.Option(
        parser=values.model_directory, help="Base model, with --length; default: the policy's."
    ),
]


def plan(
    home: Home = HERE,
    length: Length = None,
    rank: Rank = 8,
    sequences: Sequences = 8,
    steps: Steps = 20,
    model: Model = None,
) -> None:
    """Say how much memory training takes, part by part, and how it is made to fit: for the newest
    plan, or for a --length; exit 1 if nothing fits. Loads no model, and writes nothing but what
    is measured for precision = "auto"."""
    config = load_config(home)
    policy = require_policy(read_policy(config.path(config.policy)))
    if length is None:
        planned, title = _newest(config, policy)
    else:
        folder = model or _only_model(config, policy)
        planned = by_hand(
            config,
            folder,
            _all_linear(folder, rank),
            length=length,
            sequences=sequences,
            steps=steps,
        )
        title = f"{folder.name}, rank {rank}, length {length:,}"
    beside = f", with a personal adapter ({config.personal.method})"
    title += beside if config.personal.is_on else ""
    show_plan(console, planned, title, held_words(config))
    if planned.shortage is not None:
        raise SiloOperatorError(
            "memory of a training process",
            expected=f"{gigabytes(planned.least.estimate.total_bytes)}, what takes least",
            found=there_is(planned),
            action='set zero_stage, micro_batch and gradient_checkpointing to "auto" where they '
            "are not, lower ranks, or ask for shorter sequences; such a plan is refused",
        )


def show_plan(console: Console, planned: MemoryPlan, title: str, held: str) -> None:
    """The screen; `held` is how the model is held, in words."""
    shown, training = planned.shown, planned.training
    say(console, f"memory of one of {planned.work.ranks} training processes: {title}")
    say(console, f"  {held}", "")
    for part in shown.estimate.parts:
        say(console, f"  {part.name:<{NAME_WIDTH}} {gigabytes(part.size_bytes):>11}")
    moment, total = shown.estimate.moment, gigabytes(shown.estimate.total_bytes)
    say(console, f"  {f'at its fullest, while {moment}':<{NAME_WIDTH}} {total:>11}")
    say(console, f"  {there_is(planned)}", "")
    chosen = "chosen" if planned.chosen is not None else "nothing fits; least takes"
    say(console, f"{chosen}: {choice_words(shown.choice)}", f"  {_why(planned, training)}", "")
    say(console, "  stage  checkpointing  one sequence   largest micro-batch that fits")
    for stage in stages_of(training):
        for checkpointing in (False, True):
            say(console, _row(planned, stage, checkpointing=checkpointing))
    if planned.work.device == "cuda":
        say(console, "", "  by the arithmetic that was measured on CPUs; on GPUs it was not")


def _row(planned: MemoryPlan, stage: Stage, *, checkpointing: bool) -> str:
    offload = planned.training.offload if stage == 3 else "none"
    choice = Choice(stage, 1, checkpointing, offload)
    taken = gigabytes(planned.with_(choice).estimate.total_bytes)
    largest = planned.largest_micro_batch(choice)
    fits = f"{largest} of {planned.sequences_per_rank}" if largest else "does not fit"
    yes = "yes" if checkpointing else "no"
    return f"  {stage:<5}  {yes:<13}  {taken:>12}   {fits}"


def _why(planned: MemoryPlan, training: TrainingSection) -> str:
    if planned.room.size_bytes is None:
        return "what there is, is not known, so nothing was looked for"
    if "auto" not in (training.zero_stage, training.micro_batch, training.gradient_checkpointing):
        return "silo-agent.toml fixes zero_stage, micro_batch and gradient_checkpointing"
    return "the smallest stage that fits, first without checkpointing, then the largest micro-batch"


def _newest(config: SiloConfig, policy: Policy) -> tuple[MemoryPlan, str]:
    found = look(config, SystemClock().now(), storage=True).plan
    if found is None:
        raise _nothing_to_plan("no plan in the federation's feed, or no way to it")
    allowed = policy.model(found.base_model.digest)
    if allowed is None:
        raise _nothing_to_plan(
            f"a plan for {found.base_model.name}, which the policy does not name"
        )
    title = (
        f"round {found.round} on {found.base_model.name}, rank "
        f"{found.layout_of(config.silo).rank}, length {found.recipe.sequence_length:,}, "
        f"{steps_words(found.recipe, config.training)}"
    )
    return memory_plan(config.path(allowed.path), found, config), title


def _only_model(config: SiloConfig, policy: Policy) -> Path:
    """The first model that the policy names."""
    return config.path(policy.models[0].path)


def _all_linear(model_dir: Path, rank: int) -> AdapterLayout:
    task = FamilyTask(family=likely_family(model_dir))
    targets = known_modules(model_dir, task).modules
    return AdapterLayout(rank=rank, alpha=rank, seed=0, targets=targets)


def _nothing_to_plan(found: str) -> SiloOperatorError:
    return SiloOperatorError(
        "plan whose memory is asked about",
        expected="a newest plan in the federation's feed, or a --length",
        found=found,
        action="give --length and --rank by hand, or run `silo-agent check`",
    )
