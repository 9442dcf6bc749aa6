"""What a rank keeps between jobs: the engine with its base model, and the tokenizer."""

from pathlib import Path

from infra.disk.model_files import model_files
from silo_agent.training.engine_spec import EngineSpec
from silo_agent.training.job import EvaluationJob, TrainingJob
from silo_agent.training.ranks.base_model import load_tokenizer
from silo_agent.training.ranks.conversation import ChatTokenizer
from silo_agent.training.ranks.engine import LoraEngine

FileState = tuple[tuple[str, int, int, int], ...]


class KeptEngine:
    """One engine, given up when a job needs another or the files of its model changed."""

    def __init__(self) -> None:
        self._engine: LoraEngine | None = None
        self._loaded: FileState = ()
        self._one_at_a_time: FileState = ()
        self._tokenizer: tuple[Path, FileState, ChatTokenizer] | None = None

    def for_training(self, job: TrainingJob) -> LoraEngine:
        """An engine at the start of `job`; collective.

        Its micro-batch is 1 where the model does not keep sequences apart that go through it side
        by side.
        """
        if job.micro_batch > 1 and self._one_at_a_time == _file_state(job.model_dir):
            job = job.model_copy(update={"micro_batch": 1})
        engine = self._begun(job)
        if job.micro_batch > 1 and not engine.may_batch:
            self._one_at_a_time = self._loaded
            return self.for_training(job)
        return engine

    def for_measuring(self, job: EvaluationJob) -> LoraEngine:
        """An engine with the model of `job`, in training or not; collective."""
        if job.engine is None:
            raise ValueError("a job that ranks measure describes their engine")
        layouts = {"layout": job.layout, "residual_layout": job.residual_layout}
        spec = job.engine.model_copy(update=layouts)
        engine = self._fitting(spec)
        if engine is None or not engine.spec.measures_as(spec):
            engine = self._built(spec)
        engine.end()
        return engine

    def tokenizer(self, model_dir: Path) -> ChatTokenizer:
        """The tokenizer beside the base model."""
        state = _file_state(model_dir)
        if self._tokenizer is None or self._tokenizer[:2] != (model_dir, state):
            self._tokenizer = (model_dir, state, load_tokenizer(model_dir))
        return self._tokenizer[2]

    def _begun(self, job: TrainingJob) -> LoraEngine:
        engine = self._fitting(job.engine)
        if engine is None or engine.spec != job.engine:
            engine = self._built(job.engine)
        engine.begin(job)
        return engine

    def _fitting(self, spec: EngineSpec) -> LoraEngine | None:
        """The engine, unless its model is no longer what lies on the disk."""
        is_same = self._engine is not None and self._loaded == _file_state(spec.model_dir)
        return self._engine if is_same else None

    def _built(self, spec: EngineSpec) -> LoraEngine:
        if self._engine is not None:
            # Before the next one is built: two models may not fit.
            self._engine.close()
            self._engine = None
        self._loaded = _file_state(spec.model_dir)
        self._engine = LoraEngine(spec)
        return self._engine


def _file_state(model_dir: Path) -> FileState:
    """Name, inode, size and time of every file of the model."""
    states = ((name, path.stat()) for name, path in sorted(model_files(model_dir).items()))
    return tuple((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in states)
