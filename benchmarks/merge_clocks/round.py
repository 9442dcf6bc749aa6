"""Clock (c): a round without training, from adapters in silo memory to the adapter on disk.

The real agents and the real coordinator over a real SeaweedFS on loopback: plan read, contract
verdict signed, adapter gated, uploaded and signed by every silo; then admission (every adapter is
fetched, hashed and read in full by the gate), locks on all that was judged, the merge, the
candidate's upload and the directory that PEFT loads. Silos act two at a time. Evaluation is left
out, because the peers have none; so is the start of processes, as it is with the peers.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np

from aggregator.decisions.stage import Stage
from aggregator.evidence.look import look
from aggregator.evidence.spool import spool
from aggregator.federated_round import close_round, merge_round
from aggregator.publishing.publish import PeftAdapter, write_published
from aggregator.settings.federation import AdapterSection, FederationSettings
from aggregator.settings.merge import MergeSection
from benchmarks.peers.adapters import LAYERS, RANK, WIDTH, silo_adapter
from infra.stack.seaweedfs import RunningStorage, start_object_storage
from silo_agent.silo import Silo
from silo_agent.steps.own_attempt import Step
from tests.model_folders import write_model_folder
from tests.simulator.federation import FEDERATION
from tests.simulator.silo import SimulatedSilo
from tests.simulator.stored_federation import StoredFederation

SILOS_AT_A_TIME = 2
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")
STEPS_TO_SUBMIT = 6


def main() -> None:
    """Play RUNS rounds of --silos silos; the median counts. The first run starts cold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--silos", type=int, default=16)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--rule", default="average")
    parser.add_argument("--compression", default="none")
    options = parser.parse_args()
    directory = options.directory.resolve()
    merge = MergeSection.model_validate({"rule": options.rule, "compression": options.compression})
    seconds = []
    for number in range(options.runs):
        with tempfile.TemporaryDirectory(dir=directory) as name:
            storage = start_object_storage(Path(name) / "storage")
            try:
                seconds.append(_round(Path(name), storage, options.silos, merge))
            finally:
                storage.stop()
        sys.stderr.write(f"run {number}: {seconds[-1]:.2f} s\n")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {"seconds": statistics.median(seconds), "peak_mb": peak}
    sys.stdout.write(json.dumps(figures) + "\n")


def _round(directory: Path, storage: RunningStorage, silos: int, merge: MergeSection) -> float:
    """Seconds from the open plan to the published directory."""
    federation = BenchFederation(
        directory / "federation",
        _model(directory / "model"),
        quorum=silos,
        merge=merge,
    )
    federation.use(storage)
    federation.adapters = [_names_of_model(silo_adapter(silo)) for silo in range(silos)]
    names = [f"silo-{chr(97 + silo // 26)}{chr(97 + silo % 26)}" for silo in range(silos)]
    for name in names:
        federation.add_silo(name)
    federation.found()
    plan = federation.open(1)
    marks = [time.perf_counter()]
    with ThreadPoolExecutor(SILOS_AT_A_TIME) as pool:
        list(pool.map(federation.submit, federation.silos.values()))
    marks.append(time.perf_counter())
    c = federation.coordinator()
    if look(c, plan).stage is not Stage.CLOSING:
        raise SystemExit(
            f"not all silos submitted: {[s.faults for s in federation.silos.values()]}"
        )
    close_round(c, look(c, plan))
    marks.append(time.perf_counter())
    candidate = merge_round(c, look(c, plan)).record
    path = spool(c, c.plans, candidate.adapter)
    adapter = PeftAdapter(path, plan.record.layout, plan.record.base_model)
    write_published(directory / "published", adapter, card=b"")
    marks.append(time.perf_counter())
    names = ("submit", "close", "merge and publish")
    parts = zip(names, pairwise(marks), strict=True)
    text = ", ".join(f"{name} {later - earlier:.2f} s" for name, (earlier, later) in parts)
    sys.stderr.write(f"{text}\n")
    return marks[-1] - marks[0]


class BenchFederation(StoredFederation):
    """On a real object storage, with adapters of this size that are in memory already."""

    adapters: list[dict[str, np.ndarray]]

    def policy_text(self) -> str:
        """The simulated policy with room for an adapter of this size."""
        return super().policy_text().replace("10_000_000", "100_000_000")

    def _settings(self) -> FederationSettings:
        adapter = AdapterSection(rank=RANK, alpha=2 * RANK, target_modules=MODULES)
        return super()._settings().model_copy(update={"adapter": adapter})

    def submit(self, silo: SimulatedSilo) -> None:
        """Let one silo act until it has submitted."""
        stored = StoredSilo(**vars(silo))
        stored.adapter = self.adapters[list(self.silos).index(silo.name)]
        for _ in range(STEPS_TO_SUBMIT):
            if stored.act(FEDERATION, self.pinned) is Step.SUBMITTED:
                break
        silo.faults = stored.faults


class StoredSilo(SimulatedSilo):
    """A simulated silo whose trainer hands over an adapter that is in memory already."""

    adapter: dict[str, np.ndarray]

    def agent(self, *arguments: object) -> Silo:
        """The agent with that trainer."""
        agent = super().agent(*arguments)  # type: ignore[arg-type]
        agent.trainer._tensors = lambda *_: self.adapter  # type: ignore[attr-defined]
        # Checkpoints and the silo-only adapter are training's, which is left out.
        agent.trainer._leave = lambda *_: None  # type: ignore[attr-defined]
        return agent


def _model(directory: Path) -> Path:
    """A directory with the shape of a 7B Llama and no weights to speak of."""
    directory.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 64,
    }
    one = np.zeros(1, dtype=np.float32)
    layers = {f"model.layers.{layer}.norm.weight": one for layer in range(LAYERS)}
    return write_model_folder(directory, config=config, tensors=layers)


def _names_of_model(adapter: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same tensors under the module names of a Llama."""
    renamed = {}
    for name, values in adapter.items():
        for number, module in enumerate(MODULES):
            name = name.replace(f".m{number}.", f".self_attn.{module}.")
        renamed[name.replace("model.layers", "model.model.layers", 1)] = values
    return renamed


if __name__ == "__main__":
    main()
