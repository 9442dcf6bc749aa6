"""`silo-agent`: what a silo operator types. Every fault ends in one message and a non-zero exit."""

import json
import logging
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.logging import RichHandler
from rich.table import Table

from data_contracts.envelope import fingerprint
from data_contracts.errors import SiloOperatorError
from infra import command_values as values
from infra.clock import SystemClock
from infra.durable_files import write_durably
from infra.signing_keys import ensure_key, load_key
from infra.storage_probe import probe_inbox, require_promises
from infra.terminal import plain_console, run_command_line
from silo_agent.assembly import assemble_silo, contract_gate, own_inbox
from silo_agent.check_display import check_with_progress, open_data_docs
from silo_agent.compression.residual_state import ErrorFeedback
from silo_agent.config import CONFIG_NAME, MAX_RANKS, Device, load_config, parse_config
from silo_agent.kill_switch import KillSwitch
from silo_agent.loop import run_agent, running_agent
from silo_agent.policy import read_policy, require_policy
from silo_agent.sent_adapter import STATE_DIRECTORY
from silo_agent.status_reporter import STATUS_NAME
from silo_agent.templates import POLICY_TEMPLATE, config_text

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = plain_console()

Home = Annotated[
    Path,
    typer.Option(
        parser=values.directory, help="The agent's home directory.", envvar="SILO_AGENT_HOME"
    ),
]
HERE = Path()
STOP_WAIT_SECONDS = 60


def device_name(text: str) -> str:
    """Where a silo trains."""
    return str(values.parsed(Device, text.lower(), "cpu or cuda"))


@app.command()
def init(
    silo: Annotated[
        str,
        typer.Option(parser=values.silo_id, help="Id of this silo, as agreed with the operator."),
    ],
    federation: Annotated[
        str, typer.Option(parser=values.federation_id, help="Id of the federation.")
    ],
    endpoint_url: Annotated[
        str,
        typer.Option(parser=values.endpoint_url, help="S3 endpoint of the federation's storage."),
    ],
    home: Home = HERE,
    device: Annotated[str, typer.Option(parser=device_name, help="cpu or cuda")] = "cpu",
    ranks: Annotated[int, typer.Option(min=1, max=MAX_RANKS, help="Training processes.")] = 2,
    allow_plain_http: Annotated[
        bool, typer.Option("--allow-plain-http", help="Where the network below is encrypted.")
    ] = False,
) -> None:
    """Create keys, configuration and a policy that refuses everything until it is edited."""
    values.require_private(endpoint_url, allow_plain_http=allow_plain_http)
    text = config_text(
        silo, federation, endpoint_url, device, ranks, allow_plain_http=allow_plain_http
    )
    parse_config(text.encode(), home)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    config = home / CONFIG_NAME
    if config.exists():
        raise SiloOperatorError(
            str(config),
            expected="no configuration yet",
            found="one",
            action="edit it, or choose another --home",
        )
    key = ensure_key(home / "keys" / "signing-key.pem")
    if not (home / "keys" / "findings.key").exists():
        write_durably(home / "keys" / "findings.key", secrets.token_bytes(32))
    if not (home / "policy.toml").exists():
        write_durably(home / "policy.toml", POLICY_TEMPLATE.encode())
    # Last, because its presence says that init is done.
    write_durably(config, text.encode())
    console.print(f"public key   {key.public_key_hex}", highlight=False)
    console.print(f"fingerprint  {fingerprint(key.public_key_hex)}", highlight=False)
    console.print("Give the public key to the federation operator and compare the fingerprint.")


@app.command()
def check(
    home: Home = HERE,
    model: Annotated[
        Path | None,
        typer.Option(parser=values.model_directory, help="Print the digest of this model."),
    ] = None,
    storage: Annotated[bool, typer.Option(help="Also probe the storage's promises.")] = True,
    open_docs: Annotated[
        bool, typer.Option("--open", help="Render Great Expectations' Data Docs and open them.")
    ] = False,
) -> None:
    """Check configuration, policy, contract, data and storage without taking part in anything."""
    if model is not None:
        from infra.model_files import model_digest

        console.print(model_digest(model), highlight=False)
        return
    config = load_config(home)
    load_key(config.path(config.keys.signing))
    policy = require_policy(read_policy(config.path(config.policy)))
    console.print(f"policy        readable, take_part = {str(policy.take_part).lower()}")
    gate = contract_gate(config)
    outcome = check_with_progress(gate, console)
    table = Table("rule", "outcome", "severity", "records", "unexpected", title="data contract")
    for rule in outcome.outcomes:
        table.add_row(
            rule.rule,
            "holds" if rule.success else "fails",
            rule.severity,
            str(rule.element_count),
            "withheld" if rule.unexpected_count is None else str(rule.unexpected_count),
        )
    console.print(table)
    for note in outcome.operator_notes[:20]:
        console.print(f"  {note}", markup=False)
    console.print(
        f"records       {outcome.train_records} for training, {outcome.heldout_records} held out"
    )
    if open_docs:
        open_data_docs(gate, outcome, console)
    if storage:
        require_promises(probe_inbox(own_inbox(config), SystemClock().now(), role=config.silo))
        console.print("storage       keeps every promise that the agent relies on")
    if not outcome.passed:
        raise SiloOperatorError(
            "data contract",
            expected="every critical rule to hold",
            found=", ".join(
                o.rule for o in outcome.outcomes if not o.success and o.severity == "critical"
            ),
            action="correct the data or the contract; rounds are refused until then",
        )


@app.command()
def run(
    home: Home = HERE,
    once: Annotated[bool, typer.Option(help="End after one round.")] = False,
    clear_stop: Annotated[bool, typer.Option(help="Turn the kill switch off first.")] = False,
) -> None:
    """Take part in rounds until stopped."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        datefmt="%H:%M:%S",
        handlers=[_log_handler()],
    )
    config = load_config(home)
    switch = KillSwitch(config.home)
    if clear_stop:
        switch.turn_off()
    if switch.is_on():
        raise SiloOperatorError(
            "kill switch",
            expected="off",
            found=f"{config.home}/STOP",
            action="run `silo-agent run --clear-stop` when the silo may take part again",
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    silo = assemble_silo(home)
    require_promises(probe_inbox(own_inbox(config), SystemClock().now(), role=config.silo))
    run_agent(silo, once=once)


def _log_handler() -> logging.Handler:
    """Pretty in a terminal, plain lines in a log file; libraries only when they warn."""
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, markup=False)
    else:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(lambda r: r.name == "silo-agent" or r.levelno >= logging.WARNING)
    return handler


@app.command()
def status(home: Home = HERE) -> None:
    """Show whether the agent runs and what it last did."""
    config = load_config(home)
    pid = running_agent(config.home)
    console.print(f"agent   {'runs as process ' + str(pid) if pid else 'does not run'}")
    console.print(f"switch  {'STOP' if KillSwitch(config.home).is_on() else 'off'}")
    path = config.home / STATUS_NAME
    if path.exists():
        shown = json.loads(path.read_text(encoding="utf-8"))
        console.print(
            f"last    round {shown['round']} attempt {shown['attempt']}: {shown['phase']}, "
            f"step {shown['step']} of {shown['steps']}, at {shown['issued_at']}"
        )


@app.command()
def stop(home: Home = HERE) -> None:
    """Turn the kill switch on: ends training at once, and nothing leaves until it is off."""
    config = load_config(home)
    KillSwitch(config.home).turn_on()
    deadline = time.monotonic() + STOP_WAIT_SECONDS
    while (pid := running_agent(config.home)) is not None:
        if time.monotonic() > deadline:
            raise SiloOperatorError(
                "agent",
                expected=f"an end within {STOP_WAIT_SECONDS} s",
                found=f"process {pid} still runs; nothing can leave it",
                action=f"kill {pid}",
            )
        time.sleep(0.2)
    console.print("The agent has stopped; the kill switch stays on.")


@app.command("reset-error-feedback")
def reset_error_feedback(
    run: Annotated[
        str, typer.Argument(parser=values.run_id, help="Run whose unsent residuals are forgotten.")
    ],
    home: Home = HERE,
) -> None:
    """Forget what compression left unsent, say after restoring a backup; the next round starts
    from none."""
    config = load_config(home)
    if running_agent(config.home) is not None:
        raise SiloOperatorError(
            "error feedback",
            expected="an agent that does not run",
            found=f"process {running_agent(config.home)}",
            action="run `silo-agent stop` first",
        )
    ErrorFeedback(config.home / STATE_DIRECTORY, run).reset()
    console.print(f"The residuals of {run} are forgotten.")


def main() -> None:
    """Entry point."""
    run_command_line(app)


if __name__ == "__main__":
    main()
