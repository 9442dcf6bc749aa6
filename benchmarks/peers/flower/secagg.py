"""Flower's SecAgg+ on the adapters of the other clocks: a client's masking, the server's unmasking.

Flower's own code for both sides, `secaggplus_mod` and the stages of `SecAggPlusWorkflow`, with each
silo a neighbour of every other and messages handed over in memory. Seconds are of one core (CPU
time of the process). A client: from its trained arrays to the masked message. The server: from
those messages and the shares to the unmasked mean. Taken out are what clients do in between and, in
Flower's favour, the strategy's averaging of the copies that the workflow makes of that mean. Who
drops out does so after it shared its keys. Prints one line of JSON.
"""

import argparse
import copy
import json
import logging
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import (
    Code,
    FitRes,
    Parameters,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.compat.common import recorddict_compat as compat
from flwr.server.client_manager import SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import WorkflowState
from flwr.serverapp.grid import Grid
from flwr.supercore.task_identity import TaskIdentity

sys.path.append(str(Path(__file__).resolve().parents[1]))
from adapters import ExpectedMean, silo_adapter, silo_weight, tensor_shapes

TOLERANCE = 1e-4
"""Flower has 22 bits for [-8, 8], rounds at random, and divides a sum over the silos by weights."""


class KeepMean(FedAvg):
    """Takes what the workflow unmasked, and averages no copies of it."""

    found: Parameters | None = None

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:  # noqa: ARG002
        """The first of the copies."""
        self.found = results[0][1].parameters
        return None, {}


class InMemory(Grid):
    """Clients that answer at once: silo n is node n + 1. Their masked messages are kept."""

    def __init__(self, silos: int) -> None:
        self.contexts = {
            node: Context(1, node, {}, RecordDict(), {}) for node in range(1, silos + 1)
        }
        self.dropped: set[int] = set()
        self.masked: dict[int, Message] = {}
        self.mask_seconds: list[float] = []
        self.mask_bytes = 0
        self.seconds = 0.0

    def send_and_receive(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,  # noqa: ARG002
    ) -> list[Message]:
        """Every client's own part of the protocol, whose CPU time is counted."""
        began = time.process_time()
        # As over a wire, where every client has a message of its own.
        replies = [self._reply(copy.deepcopy(message)) for message in messages]
        self.seconds += time.process_time() - began
        return [reply for reply in replies if reply is not None]

    def _reply(self, message: Message) -> Message | None:
        node = message.metadata.dst_node_id
        stage = message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
        if stage == Stage.COLLECT_MASKED_VECTORS:
            return None if node in self.dropped else self._masked(node, message)
        if stage == Stage.UNMASK:
            return secaggplus_mod(message, copy.deepcopy(self.contexts[node]), _no_training)
        return secaggplus_mod(message, self.contexts[node], _no_training)

    def _masked(self, node: int, message: Message) -> Message:
        if node not in self.masked:
            spent = 0.0

            def train(asked: Message, context: Context) -> Message:  # noqa: ARG001
                nonlocal spent
                began = time.process_time()
                arrays = ndarrays_to_parameters(list(silo_adapter(node - 1).values()))
                result = FitRes(Status(Code.OK, ""), arrays, silo_weight(node - 1), {})
                content = compat.fitres_to_recorddict(result, False)
                spent = time.process_time() - began
                return Message(content, reply_to=asked)

            began = time.process_time()
            reply = secaggplus_mod(message, self.contexts[node], train)
            self.mask_seconds.append(time.process_time() - began - spent)
            sent = reply.content.config_records[RECORD_KEY_CONFIGS][Key.MASKED_PARAMETERS]
            self.mask_bytes = sum(len(array) for array in sent)
            self.masked[node] = reply
        return self.masked[node]

    def set_run(self, run: Any) -> None:
        """Of no use here."""

    @property
    def run(self) -> Any:
        """Of no use here."""
        raise NotImplementedError

    def create_message(self, *_: Any, **__: Any) -> Message:
        """Of no use here."""
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        """All of them."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Of no use here."""
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Of no use here."""
        raise NotImplementedError


def _no_training(asked: Message, context: Context) -> Message:
    raise NotImplementedError


def main() -> None:
    """Once with all silos, then without the last --dropped of them, as often as it is given."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--silos", type=int, required=True)
    parser.add_argument("--threshold", type=int, required=True)
    parser.add_argument("--dropped", type=int, nargs="*", default=[])
    options = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    grid, strategy = InMemory(options.silos), KeepMean(min_fit_clients=options.silos)
    context = _context(grid, strategy)
    workflow = SecAggPlusWorkflow(
        num_shares=1.0,
        reconstruction_threshold=options.threshold,
        max_weight=float(silo_weight(options.silos - 1)),
    )
    shared = WorkflowState()
    if not workflow.setup_stage(grid, context, shared):
        raise SystemExit("Flower's set-up ended early")
    if not workflow.share_keys_stage(grid, context, shared):
        raise SystemExit("Flower's sharing of keys ended early")
    states = {dropped: copy.deepcopy(shared) for dropped in (0, *options.dropped)}
    figures: dict[str, float] = {}
    for dropped, state in states.items():
        grid.dropped = set(range(options.silos - dropped + 1, options.silos + 1))
        name = f"unmask_seconds_dropped_{dropped}"
        figures[name] = _unmasked(workflow, grid, context, state)
        _check(strategy, options.silos - dropped)
    figures["mask_seconds"] = statistics.median(grid.mask_seconds)
    figures["bytes_per_silo"] = grid.mask_bytes
    sys.stdout.write(json.dumps(figures) + "\n")


def _context(grid: InMemory, strategy: KeepMean) -> LegacyContext:
    clients = SimpleClientManager()
    for node in grid.get_node_ids():
        clients.register(GridClientProxy(node, grid, 1))
    state = RecordDict(
        {
            "config": ConfigRecord({"current_round": 1}),
            "parameters": compat.parameters_to_arrayrecord(
                ndarrays_to_parameters([np.zeros(1, dtype=np.float32)]), True
            ),
        }
    )
    own = Context(1, 0, {}, state, {})
    return LegacyContext(own, strategy=strategy, client_manager=clients)


def _unmasked(
    workflow: SecAggPlusWorkflow, grid: InMemory, context: LegacyContext, state: WorkflowState
) -> float:
    """CPU seconds of the server's two last stages alone."""
    grid.seconds, began = 0.0, time.process_time()
    is_done = workflow.collect_masked_vectors_stage(grid, context, state)
    if not is_done or not workflow.unmask_stage(grid, context, state):
        raise SystemExit("Flower's unmasking ended early")
    return time.process_time() - began - grid.seconds


def _check(strategy: KeepMean, survivors: int) -> None:
    """The mean of those who did not drop out."""
    if strategy.found is None:
        raise SystemExit("Flower gave no mean")
    expected = ExpectedMean()
    for silo in range(survivors):
        expected.add(silo, silo_adapter(silo))
    arrays = parameters_to_ndarrays(strategy.found)
    found = dict(zip(tensor_shapes(), arrays, strict=True))
    expected.check(found, TOLERANCE)


if __name__ == "__main__":
    main()
