"""`consortia unlearn`: take an institution's part out of the federation's adapters again."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.federation_options import HERE, Home
from infra import command_values as values
from infra.terminal import plain_console, say, say_command

unlearn_app = typer.Typer(
    no_args_is_help=True, help="Take an institution's part out of the adapters again."
)
console = plain_console()

Silo = Annotated[str, typer.Option(parser=values.silo_id, help="Whose part is taken out.")]
Run = Annotated[
    str | None,
    typer.Option(parser=values.run_id, help="Name of the run that goes on without it."),
]
FromSeed = Annotated[
    bool, typer.Option("--from-seed", help="Repeat the run from its beginning, to the last digit.")
]
OtherSeeds = Annotated[
    bool,
    typer.Option("--other-seeds", help="Train with other random numbers than the old rounds."),
]


@unlearn_app.command("plan")
def unlearn_plan(
    silo: Silo,
    run: Run = None,
    from_seed: FromSeed = False,
    other_seeds: OtherSeeds = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    home: Home = HERE,
) -> None:
    """What it takes: rounds, trainings, cost, and why it cannot be had; nothing is signed."""
    from aggregator.coordinator import load_coordinator
    from aggregator.feed.reading import read_federation
    from aggregator.unlearning.erasing import Choices, consider
    from flows.commands.unlearn_display import plan_json, plan_lines

    c = load_coordinator(home)
    choices = Choices(run, from_seed=from_seed, other_seeds=other_seeds)
    considered = consider(c, read_federation(c), silo, choices)
    if as_json:
        say(console, json.dumps(plan_json(considered), indent=2))
        return
    say(console, *plan_lines(considered))
    if not considered.hindrances:
        chosen = [] if run is None else ["--run", run]
        chosen += ["--from-seed"] if from_seed else []
        chosen += ["--other-seeds"] if other_seeds else []
        say(console, "Sign it:")
        start = ("consortia", "unlearn", "start", "--silo", silo, "--home", home)
        say_command(console, *start, *chosen)


@unlearn_app.command("start")
def unlearn_start(
    silo: Silo,
    run: Run = None,
    from_seed: FromSeed = False,
    other_seeds: OtherSeeds = False,
    home: Home = HERE,
) -> None:
    """Sign it: what has the part is revoked, and the run that goes on without it comes next."""
    from aggregator.coordinator import load_coordinator
    from aggregator.unlearning.erasing import Choices, start_erasure
    from flows.federation.run_setting import go_on_with_run

    c = load_coordinator(home)
    choices = Choices(run, from_seed=from_seed, other_seeds=other_seeds)
    erasure = start_erasure(c, silo, choices).record
    rounds = [each.round for each in erasure.replayed]
    say(
        console,
        f"signed as entry {erasure.feed_number} of the feed: {len(erasure.revoked)} files with the "
        f"part of {silo} are revoked, and silos refuse plans that start from them",
        *go_on_with_run(home, erasure.replay_run),
        f"Rounds {rounds[0]} to {rounds[-1]} are had again in it, as every round is:",
    )
    until = ("--until-round", rounds[-1])
    say_command(console, "consortia", "round", "start", "--home", home, *until)
    say(console, "After the last one its certificate lies in the reports folder.")


@unlearn_app.command("verify")
def unlearn_verify(
    file: Annotated[Path, typer.Argument(parser=values.existing_file, help="The certificate.")],
    trust: Annotated[
        Path,
        typer.Option(parser=values.existing_file, help="Membership file, obtained out of band."),
    ],
    adapter: Annotated[
        Path | None,
        typer.Option(
            parser=values.existing_file,
            help="adapter_model.safetensors that should be the new one.",
        ),
    ] = None,
) -> None:
    """Check a certificate offline: one line per claim, exit 1 if any fails."""
    from aggregator.audit.erasure_audit import audit_certificate
    from aggregator.unlearning.certificate_page import open_certificate
    from data_contracts.protocol.trust_anchor import load_trust_anchor
    from flows.commands.claims_display import show_claims

    found, page = open_certificate(file)
    show_claims(console, audit_certificate(found, page, load_trust_anchor(trust), adapter))
