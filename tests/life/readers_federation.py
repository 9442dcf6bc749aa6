"""A federation that somebody brings up by README's "A federation of your own", and lives with.

The commands, the lines to set and their order are read from README. What a reader brings is made
here: a model, and texts of three institutions. What a reader starts in a terminal of its own runs
in the background. The ports are kept free of others' by a stack that remembers them.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil

from aggregator.coordinator import Coordinator, load_coordinator
from data_contracts.protocol.records import RoundReport
from infra.processes.local_processes import stop_recorded
from infra.stack.stack_ports import StackPorts, remember_ports, remembered_ports
from tests.flows.real_federation import newest_report, set_values
from tests.printed_commands import require_pasteable
from tests.tiny_model import make_tiny_model

_T = TypeVar("_T")
ROOT = Path(__file__).resolve().parent.parent.parent
HEADING = "## A federation of your own\n"
PROGRAMS = {"consortia": "flows.cli", "silo-agent": "silo_agent.cli"}
OWN_TERMINAL = ("silo-agent run ", "consortia deploy ")
DEPLOY = "consortia deploy --home fed"
STEP_SECONDS = 600
BASH = "/bin/bash"
CANARY = "Canary5c9e1"
"""In every text, id and file name of every silo's data; it must be nowhere else."""
WORDS = {
    "north": "angina infarction stenosis effusion thrombus murmur syncope oedema",
    "south": "fracture sprain dislocation arthritis scoliosis tendinitis bursitis gout",
    "east": "asthma pneumonia bronchitis emphysema fibrosis pleurisy apnoea croup",
}
FINDINGS = "acute chronic recurrent severe mild stable congenital secondary"
ACTIONS = "review scan refer monitor discharge admit measure discuss"


@dataclass
class Reader:
    """Somebody who follows README in an empty folder, in a narrow terminal, and then goes on.

    `background` has what runs in terminals of its own, by the command that was typed.
    """

    folder: Path
    background: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    pasteable: int = 0

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir(parents=True)
        for name, module in PROGRAMS.items():
            script = self.folder / "bin" / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
            script.chmod(0o755)
        remember_ports(self.stack, StackPorts.free())
        make_tiny_model(self.folder / "model")

    @property
    def home(self) -> Path:
        """Home directory of the coordinator."""
        return self.folder / "fed"

    @property
    def stack(self) -> Path:
        """State directory of storage and Prefect."""
        return self.folder / "stack"

    def coordinator(self) -> Coordinator:
        """A fresh coordinator from the files on disk."""
        return load_coordinator(self.home)

    def reported(self, round_number: int, attempt: int) -> RoundReport | None:
        """The report of an attempt of the newest round, once it is there."""
        return newest_report(self.coordinator(), round_number, attempt)

    def status(self, silo: str) -> dict[str, Any]:
        """What the agent last showed locally; empty before its first status."""
        path = self.folder / silo / "status.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def type(self, block: str) -> str:
        """Run a block of commands; what belongs into terminals of its own keeps running."""
        lines = block.splitlines(keepends=True)
        for line in lines:
            if line.startswith(OWN_TERMINAL):
                self.start(line.strip())
        here = "".join(line for line in lines if not line.startswith(OWN_TERMINAL))
        here = here.replace("http://127.0.0.1:8333", self.addresses()["endpoint_url"])
        return self.run(BASH, "-euo", "pipefail", "-c", here)

    def set_lines(self, block: str) -> None:
        """Set the lines of a block in the files that its first line names."""
        heading, *lines = block.splitlines()
        for name in re.findall(r"[\w./-]+\.(?:toml|yaml)", heading):
            path = self.folder / name
            text = path.read_text()
            for line in lines:
                start = re.split(", value" if ", value" in line else "[=:]", line, maxsplit=1)[0]
                place = re.compile(rf"^\s*{re.escape(start)}.*$", re.MULTILINE)
                (found,) = place.finditer(text)
                indented = found[0][: len(found[0]) - len(found[0].lstrip())] + line
                text = text[: found.start()] + indented + text[found.end() :]
            path.write_text(text)

    def bring_records(self, example: str) -> None:
        """Texts of each institution, of the form that README shows."""
        for silo in WORDS:
            lines = [json.dumps(record) for record in records(silo, json.loads(example))]
            data = self.folder / silo / "data"
            (data / f"{CANARY}.jsonl").write_text("\n".join(lines) + "\n")
            # The contract, which the coordinator holds, knows a name that says nothing.
            (data / "records.jsonl").symlink_to(f"{CANARY}.jsonl")

    def set_agent(self, silo: str, agent: str = "", **training: Any) -> None:
        """Settings of an agent's [training], and lines of its [agent]; for its next start."""
        path = self.folder / silo / "silo-agent.toml"
        set_values(path, **training)
        path.write_text(f"{path.read_text()}\n[agent]\n{agent}\n" if agent else path.read_text())

    def start(self, command: str) -> None:
        """Run a command in a terminal of its own; its log goes on from an earlier start's."""
        with self.log(command).open("ab") as log:
            self.background[command] = subprocess.Popen(
                [BASH, "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def end(self, command: str, how: int = signal.SIGTERM) -> list[psutil.Process]:
        """End what runs in a terminal of its own; returns what it had started."""
        process = self.background.pop(command)
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(how)
        process.wait(60)
        return started

    def said(self, command: str) -> str:
        """Everything that a command in the background has printed, all its starts together."""
        return self.log(command).read_text()

    def wait_for(self, what: str, look: Callable[[], _T | None]) -> _T:
        """Poll until `look` gives something; fails with the logs when time is up."""
        deadline = time.monotonic() + STEP_SECONDS
        while not (found := look()):
            assert time.monotonic() < deadline, f"{what}: not in time\n{self.log_tails()}"
            self.require_running()
            time.sleep(0.3)
        return found

    def require_running(self) -> None:
        """Nothing that runs in a terminal of its own has ended."""
        for command, process in self.background.items():
            assert process.poll() is None, f"{command} ended:\n{self.said(command)}"

    def leave(self) -> None:
        """Ctrl-C in every terminal, then stop the stack."""
        for process in self.background.values():
            process.terminate()
        for process in self.background.values():
            process.wait(60)
        stop_recorded(self.stack)

    def consortia(self, *arguments: str, fails: bool = False) -> str:
        """A `consortia` command's output; what it prints to paste can be pasted."""
        return self.run("consortia", *arguments, fails=fails)

    def run(self, *command: str, fails: bool = False, seconds: float = STEP_SECONDS) -> str:
        """What a command says; fails unless it ends as it should."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert (done.returncode != 0) == fails, f"{command}\n{done.stdout}\n{self.log_tails()}"
        assert "Traceback" not in done.stdout
        self.pasteable += require_pasteable(done.stdout)
        return done.stdout

    def addresses(self) -> dict[str, str]:
        """What the settings should say, from what the stack remembers."""
        ports = remembered_ports(self.stack)
        assert ports is not None
        return {
            "endpoint_url": ports.endpoint_url,
            "api_url": ports.prefect_api_url,
            "auth": str(self.stack.resolve() / "prefect-auth"),
        }

    def log(self, command: str) -> Path:
        """Where a command in the background prints to."""
        return self.folder / (re.sub(r"\W+", "-", command) + ".log")

    def log_tails(self) -> str:
        """The ends of what runs in the background has printed."""
        return "".join(self.said(command)[-2000:] for command in self.background)

    def environment(self) -> dict[str, str]:
        """Of everything that is typed."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "40"}


def addresses_in_settings(home: Path) -> dict[str, str]:
    """Those of storage and Prefect that a federation's settings name."""
    written = tomllib.loads((home / "federation.toml").read_text())
    return {
        "endpoint_url": written["storage"]["endpoint_url"],
        "api_url": written["prefect"]["api_url"],
        "auth": written["prefect"]["auth"],
    }


def blocks() -> list[tuple[str, str]]:
    """The fenced blocks of the section with their languages, in order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split(HEADING, 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert [language for language, _ in found].count("bash") > 8
    return found


def records(silo: str, example: dict[str, str]) -> Iterator[dict[str, str]]:
    """Questions and answers that no other institution has, with the fields of the example."""
    chance = random.Random(silo)
    for number in range(120):
        terms, findings = (chance.sample(words.split(), 4) for words in (WORDS[silo], FINDINGS))
        notes = [
            f"{f} {t}: {chance.choice(ACTIONS.split())}"
            for f, t in zip(findings, terms, strict=True)
        ]
        asked = f"{' and '.join(terms[:2])} in case {number} of {CANARY}"
        record = {
            "id": f"{CANARY}-{silo}-{number}",
            "subject": f"{CANARY}-p-{number}",
            "prompt": f"What follows from {asked}?",
            "answer": f"For case {number}, {'; '.join(notes)}. {CANARY} decides.",
            "licence": example["licence"],
            "source": f"teaching cases of {silo} by {CANARY}",
        }
        assert record.keys() == example.keys()
        yield record
