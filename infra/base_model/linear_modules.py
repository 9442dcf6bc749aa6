"""What of a base model is trained for a task: asked of the model and of PEFT, in a process apart.

Coordinator and silos have to agree on it, so there is one place that says it, and it says what the
very classes that are trained say: the child builds the model from its configuration on the meta
device, without weights, and lets PEFT put adapters on it. For a task with a head it also asks
`from_pretrained` what the files lack. This process never loads PyTorch.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.model_family import CAUSAL_TASK, DENOISING, FamilyTask
from infra.base_model.diffusion_extra import require_diffusers
from infra.disk.model_parts import PIPELINE_FILE, is_pipeline, parts_of

CHILD = "infra.base_model.linear_modules_child"
MOST_SECONDS = 600


@dataclass(frozen=True)
class LinearModules:
    """In the order of the model. `left_out` says, by the end of a name, why PEFT takes it not.
    `head`: tensors that the model's files lack, which are trained whole."""

    modules: tuple[AdapterTarget, ...]
    left_out: dict[str, str]
    head: tuple[AdapterTarget, ...] = ()


class NoSuchModelError(Exception):
    """The folder gives no model of the family; the text says why."""


_answers: dict[tuple[str, FamilyTask], LinearModules] = {}
"""By the digest of the configuration and the task: a process asks once."""


def linear_modules(model_dir: Path, task: FamilyTask = CAUSAL_TASK) -> LinearModules:
    """Every linear module but the output head; of a pipeline the attention projections of its UNet.

    Raises NoSuchModelError, with the reason, and SiloOperatorError where diffusers is needed and
    is not installed.
    """
    if is_pipeline(model_dir) != (task.family == DENOISING):
        which = "is one" if is_pipeline(model_dir) else "is none"
        raise NoSuchModelError(f"a pipeline with {PIPELINE_FILE} is for {DENOISING}; this {which}")
    if task.family == DENOISING:
        require_diffusers()
    config = parts_of(model_dir).config
    try:
        digest = artifact_of_file(config).digest
    except OSError as error:
        raise NoSuchModelError(f"{config.relative_to(model_dir)}: {error.strerror}") from None
    if (digest, task) not in _answers:
        _answers[digest, task] = _asked(model_dir, task)
    return _answers[digest, task]


def _asked(model_dir: Path, task: FamilyTask) -> LinearModules:
    done = subprocess.run(
        [sys.executable, "-m", CHILD, str(model_dir.resolve()), task.model_dump_json()],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
        check=False,
    )
    last = (done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()[-1]
    if done.returncode:
        raise NoSuchModelError(last[:300])
    found = json.loads(last)
    modules = tuple(
        AdapterTarget(module=name, in_features=inputs, out_features=outputs)
        for name, inputs, outputs in found["modules"]
    )
    head = tuple(AdapterTarget.model_validate(each) for each in found["head"])
    return LinearModules(modules, found["left_out"], head)
