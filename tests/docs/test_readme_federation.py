"""README's "A federation of your own", word for word, from the first command to an adapter.

The commands, the lines to set and their order are read from README. What a reader brings is made
here: a model, and texts of three institutions. What a reader starts in a terminal of its own runs
in the background. The ports are kept free of others' by a stack that remembers them.
"""

import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.processes.local_processes import stop_recorded
from infra.stack.stack_ports import StackPorts, remember_ports
from tests.printed_commands import require_pasteable
from tests.tiny_model import make_tiny_model

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parent.parent.parent
HEADING = "## A federation of your own\n"
PROGRAMS = {"consortia": "flows.cli", "silo-agent": "silo_agent.cli"}
OWN_TERMINAL = ("silo-agent run ", "consortia deploy ")
STEP_SECONDS = 600
BASH = "/bin/bash"
WORDS = {
    "north": "angina infarction stenosis effusion thrombus murmur syncope oedema",
    "south": "fracture sprain dislocation arthritis scoliosis tendinitis bursitis gout",
    "east": "asthma pneumonia bronchitis emphysema fibrosis pleurisy apnoea croup",
}
FINDINGS = "acute chronic recurrent severe mild stable congenital secondary"
ACTIONS = "review scan refer monitor discharge admit measure discuss"


@dataclass
class Reader:
    """Somebody who follows README in an empty folder, in a narrow terminal."""

    folder: Path
    endpoint: str
    background: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)
    pasteable: int = 0

    def type(self, block: str) -> str:
        """Run a block of commands; what belongs into terminals of its own keeps running."""
        lines = block.splitlines(keepends=True)
        for line in lines:
            if line.startswith(OWN_TERMINAL):
                self._start(line.strip())
        return self._run("".join(line for line in lines if not line.startswith(OWN_TERMINAL)))

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
            (self.folder / silo / "data" / "records.jsonl").write_text("\n".join(lines) + "\n")

    def wait_for(self, command: str, said: str) -> None:
        """Wait until a command in the background has said something."""
        log = self._log(command)
        deadline = time.monotonic() + STEP_SECONDS
        while said not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            self.require_running()
            time.sleep(0.5)

    def require_running(self) -> None:
        """Nothing that runs in a terminal of its own has ended."""
        for command, process in self.background:
            assert process.poll() is None, f"{command} ended:\n{self._log(command).read_text()}"

    def leave(self) -> None:
        """Ctrl-C in every terminal, then stop the stack."""
        for _, process in self.background:
            process.terminate()
        for _, process in self.background:
            process.wait(60)
        stop_recorded(self.folder / "stack")

    def _run(self, block: str) -> str:
        done = subprocess.run(
            [BASH, "-euo", "pipefail", "-c", self._own_storage(block)],
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
        logs = "".join(self._log(command).read_text()[-2000:] for command, _ in self.background)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{logs}"
        self.pasteable += require_pasteable(done.stdout)
        return done.stdout

    def _start(self, command: str) -> None:
        with self._log(command).open("wb") as log:
            process = subprocess.Popen(
                [BASH, "-c", f"exec {command}"],
                cwd=self.folder,
                env=self._environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.background.append((command, process))

    def _log(self, command: str) -> Path:
        return self.folder / (re.sub(r"\W+", "-", command) + ".log")

    def _own_storage(self, block: str) -> str:
        return block.replace("http://127.0.0.1:8333", self.endpoint)

    def _environment(self) -> dict[str, str]:
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "40"}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    folder = tmp_path / "an empty folder"
    (folder / "bin").mkdir(parents=True)
    for name, module in PROGRAMS.items():
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        script.chmod(0o755)
    ports = StackPorts.free()
    remember_ports(folder / "stack", ports)
    make_tiny_model(folder / "model")
    reader = Reader(folder, ports.endpoint_url)
    yield reader
    reader.leave()


def test_a_reader_gets_to_a_published_adapter_that_each_member_verifies(reader: Reader) -> None:
    said = ""
    for language, block in blocks():
        if language in ("toml", "yaml"):
            reader.set_lines(block)
        elif language == "json":
            reader.bring_records(block)
        elif language == "bash":
            if "round start" in block:
                reader.wait_for("consortia deploy --home fed", "serving")
            said += reader.type(block)
            reader.require_running()
    assert said.count("no claim fails") == 3, said
    assert "adapter_model.safetensors" in said
    assert reader.pasteable > 20
    said = reader.type("silo-agent check --home north")
    assert "its plan is one that the policy accepts" in said


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
        record = {
            "id": f"{silo}-{number}",
            "subject": f"p-{number}",
            "prompt": f"What follows from {' and '.join(terms[:2])} in case {number}?",
            "answer": f"For case {number}, {'; '.join(notes)}.",
            "licence": example["licence"],
            "source": f"teaching cases of {silo}",
        }
        assert record.keys() == example.keys()
        yield record
