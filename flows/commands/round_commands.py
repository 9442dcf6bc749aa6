"""`consortia round`: start, follow, go on with and abort rounds, and what each silo contributed."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from data_contracts.limits import MAX_ROUND
from flows.commands.federation_options import HERE, Home
from infra import command_values as values
from infra.terminal import plain_console, say

round_app = typer.Typer(no_args_is_help=True, help="Start, follow and abort rounds.")
console = plain_console()

MAX_SEQUENCES = 1_000_000


@round_app.command("start")
def round_start(
    home: Home = HERE,
    until_round: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_ROUND, help="Last round to run; default is one round."),
    ] = None,
) -> None:
    """Ask Prefect for rounds now; needs `consortia deploy` to be running."""
    from aggregator.coordinator import CONTRACTS_DIRECTORY
    from aggregator.planning.privacy import example_cost, silos_that_refuse
    from aggregator.settings.federation import load_settings
    from flows.deployment.prefect_settings import use_prefect_of
    from flows.round.operations import require_place_for_copies

    settings = load_settings(home)
    use_prefect_of(settings)
    require_place_for_copies(settings)
    from flows.commands.next_steps import after_round_start
    from flows.deployment.deployments import start_rounds
    from flows.round.waiting import next_round_number

    cost = example_cost(settings)
    number = next_round_number(home)
    run = start_rounds(settings, until_round)
    say(console, f"flow run {run}")
    say(console, *([] if cost is None else [cost]))
    say(console, *silos_that_refuse(settings, settings.path(CONTRACTS_DIRECTORY)))
    say(console, *after_round_start(settings, number, run))


@round_app.command("status")
def round_status(home: Home = HERE) -> None:
    """Show the newest round once, or what the first one waits for."""
    from aggregator.coordinator import load_coordinator
    from flows.round.waiting import what_is_waited_for
    from flows.round.watch import render_round, view_round

    coordinator = load_coordinator(home)
    view = view_round(coordinator)
    if view.plan is None:
        say(console, *what_is_waited_for(coordinator))
    else:
        console.print(render_round(view))
    if view.revoked is not None:
        say(console, view.revoked)


@round_app.command("watch")
def round_watch(
    home: Home = HERE,
    round_number: Annotated[
        int | None,
        typer.Option("--round", min=1, max=MAX_ROUND, help="Round to follow; default: the newest."),
    ] = None,
) -> None:
    """Follow a round until it is reported; before its plan, say what it waits for."""
    from aggregator.coordinator import load_coordinator
    from flows.round.follow import follow_round

    follow_round(load_coordinator(home), console, round_number)


@round_app.command("abort")
def round_abort(
    reason: Annotated[
        str, typer.Option(parser=values.line, help="Why; it is signed and every silo reads it.")
    ],
    home: Home = HERE,
) -> None:
    """End the newest attempt without a model; a retry is the next attempt."""
    from aggregator.coordinator import load_coordinator
    from flows.round.operations import abort_newest

    say(console, f"aborted: {abort_newest(load_coordinator(home), reason)}")


@round_app.command("go-on")
def round_go_on(home: Home = HERE) -> None:
    """Stop waiting for silos that have not answered; needs the plan's quorum of those that have."""
    from aggregator.coordinator import load_coordinator
    from flows.round.operations import stop_waiting

    say(console, stop_waiting(load_coordinator(home)))


@round_app.command("contributions")
def round_contributions(
    round_number: Annotated[
        int, typer.Argument(min=1, max=MAX_ROUND, help="A round that was closed.")
    ],
    public: Annotated[
        Path | None,
        typer.Option(
            parser=values.existing_file,
            help="Measure here, on JSONL with `prompt` and `answer`, or records of another form.",
        ),
    ] = None,
    by_silos: Annotated[
        bool, typer.Option("--by-silos", help="Silos measure, if all share their adapters.")
    ] = False,
    home: Home = HERE,
    exact: Annotated[bool, typer.Option(help="Shapley values, up to 10 silos.")] = False,
    sequences: Annotated[
        int, typer.Option(min=1, max=MAX_SEQUENCES, help="Packed sequences of --public.")
    ] = 64,
    wait: Annotated[
        float, typer.Option(parser=values.wait_seconds, help="Seconds to wait for the silos.")
    ] = 0,
    answer_minutes: Annotated[
        float | None,
        typer.Option(
            parser=values.answer_minutes, help="Silos' time to answer; default: to evaluate."
        ),
    ] = None,
) -> None:
    """What each silo contributed to a round, with intervals; leave-one-out unless --exact."""
    from aggregator.contribution.by_silos import Question, Waiting, contributions_by_silos
    from aggregator.contribution.result import Contributions
    from aggregator.coordinator import load_coordinator
    from flows.round.contribution import PublicSet, contributions
    from flows.round.contribution_view import render_contributions

    if by_silos == (public is not None):
        raise typer.BadParameter("give either --public FILE or --by-silos")
    c = load_coordinator(home)
    found: Contributions | Waiting
    if public is not None:
        found = contributions(c, round_number, PublicSet(public, sequences), exact=exact)
    else:
        minutes = answer_minutes or c.settings.round.evaluate_minutes
        question = Question(round_number, exact=exact, answer_within=timedelta(minutes=minutes))
        found = contributions_by_silos(c, question, timedelta(seconds=wait))
    console.print(render_contributions(found))
