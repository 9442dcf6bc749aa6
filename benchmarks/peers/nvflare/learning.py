"""Both sides of a round with training, as FLARE loads them from the job: server and silo."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLMetaKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.app_opt.pt.decomposers import TensorDecomposer
from nvflare.fuel.utils import fobs
from plain_training import PlainTraining, start_of, steps_seconds

QUIET_SECONDS = 5.0
"""Between rounds, not timed: the silo is asking for tasks again when the next one begins."""

fobs.register(TensorDecomposer)


class TimedRounds(FedAvg):
    """FLARE's FedAvg with one silo, timed from sending the task to the averaged adapter."""

    def __init__(self, num_rounds: int, folder: str) -> None:
        super().__init__(
            num_clients=1, num_rounds=num_rounds, persistor_id="", task_check_period=0.02
        )
        self.folder = folder
        self._rounds: list[dict[str, float]] = []
        self._began = 0.0

    def load_model(self) -> FLModel:
        """The adapter that the first round starts from."""
        start = start_of(Path(self.folder))
        return FLModel(params={name: torch.from_numpy(value) for name, value in start.items()})

    def send_model(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock and send the task."""
        time.sleep(QUIET_SECONDS)
        self._began = time.perf_counter()
        super().send_model(*args, **kwargs)

    def save_model(self, model: FLModel) -> None:  # noqa: ARG002
        """Stop the clock; leave the figures after the last round."""
        seconds, folder = time.perf_counter() - self._began, Path(self.folder)
        steps = steps_seconds(folder)
        self._rounds.append({"seconds": seconds - steps, "steps_seconds": steps})
        if len(self._rounds) == self.num_rounds:
            (folder / "overhead.tmp").write_text(json.dumps(self._rounds))
            (folder / "overhead.tmp").rename(folder / "overhead.json")


class TrainingExecutor(Executor):
    """A silo whose model stays in its process from the first task on."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder
        self._training: PlainTraining | None = None

    def execute(
        self,
        task_name: str,  # noqa: ARG002
        shareable: Shareable,
        fl_ctx: FLContext,  # noqa: ARG002
        abort_signal: Signal,  # noqa: ARG002
    ) -> Shareable:
        """Train from the adapter that came, and send the new one."""
        start = FLModelUtils.from_shareable(shareable).params
        self._training = self._training or PlainTraining(Path(self.folder))
        adapter = self._training.train({name: value.numpy() for name, value in start.items()})
        return FLModelUtils.to_shareable(
            FLModel(
                params_type=ParamsType.FULL,
                params={name: torch.from_numpy(value) for name, value in adapter.items()},
                meta={FLMetaKey.NUM_STEPS_CURRENT_ROUND: 1},
            )
        )
