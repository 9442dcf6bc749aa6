"""The merge over a Prefect task runner on Dask, for adapters that one machine is too small for.

Guaranteed: the coordinator alone keeps journal, part file and digests, and gets the merged modules
slice by slice, never more under way than the workers can take; a slice whose worker died is merged
again on another; a worker that computes otherwise than the coordinator merges nothing, so the bytes
are those of a merge on threads. Prefect stores ids and counts only: no value of any adapter, and
no parameter of the task that asked for the merge leaves this process.

Workers need the coordinator's spool under the same path on a shared file system, its Prefect API,
and its trust: they read every silo's local adapter, and whoever reaches a scheduler can run code on
its workers. Give a scheduler TLS (Dask's `distributed.comm.tls`, tls://) or a network of its own.
"""

import contextlib
import pickle
import queue
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import torch
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.futures import PrefectFuture
from prefect.states import Cancelled
from prefect.tasks import Task

from aggregator.merge.adapter_merge import ModuleMerger
from aggregator.merge.merge_inputs import MergeInputs
from aggregator.merge.rules import MergedModule, merge_module
from data_contracts.errors import ConsortiaError, FederationOperatorError
from infra.processes.worker_threads import default_workers

if TYPE_CHECKING:
    from prefect_dask.task_runners import DaskTaskRunner

SLICE_MODULES = 8
SLICES_PER_THREAD = 2
"""One slice being merged and one waiting, so that a worker is never idle between two."""
RETRIES = 2
CONNECT_SECONDS = 30
POLL_SECONDS = 0.5

_Slice = list[tuple[int, MergedModule]]


@dataclass(frozen=True)
class _Job:
    """What the flow works on; kept out of its parameters, which Prefect stores."""

    payload: bytes
    slices: list[list[int]]
    stopped: threading.Event = field(default_factory=threading.Event)
    outbox: queue.Queue[_Slice | BaseException | None] = field(
        default_factory=lambda: queue.Queue(maxsize=1)
    )

    def put(self, item: _Slice | BaseException | None) -> None:
        """Hand over a slice, an error or the end; waits for the coordinator to take it."""
        while not self.stopped.is_set():
            with contextlib.suppress(queue.Full):
                self.outbox.put(item, timeout=POLL_SECONDS)
                return


_JOB: ContextVar[_Job] = ContextVar("merge job")


def merge_on_dask(
    address: str | None = None, slice_modules: int = SLICE_MODULES, workers: int | None = None
) -> ModuleMerger:
    """A merger for `merge_adapters` on the Dask scheduler at `address`.

    Without an address, on `workers` processes of this machine (one per core when None), which speak
    TLS on loopback. A task merges `slice_modules` modules. Raises FederationOperatorError without
    the extra `dask`; the merger raises it when scheduler, workers or shared files are missing.
    """
    runner = _task_runner(address, workers or default_workers())

    def merge_modules(
        inputs: MergeInputs, indices: list[int]
    ) -> Iterator[tuple[int, MergedModule]]:
        slices = [indices[i : i + slice_modules] for i in range(0, len(indices), slice_modules)]
        if slices:
            yield from _merged(runner, _Job(_packed(inputs), slices))

    return merge_modules


@flow(name="distributed-merge", flow_run_name="merge-{modules}-modules", persist_result=False)
def distributed_merge(modules: int, slices: int) -> State[Any] | None:  # noqa: ARG001
    """Merge the slices of the job in this context; the parameters are what Prefect shows of it."""
    # Prefect sends a flow's own lines to the workers, so they name nothing that stays here.
    return _hand_over_slices()


def _hand_over_slices() -> State[Any] | None:
    """Submit slices as workers become free and hand over each as it is finished."""
    job, client = _JOB.get(), _client()
    waiting = deque(job.slices)
    pending: list[PrefectFuture[_Slice]] = []
    finished: queue.Queue[PrefectFuture[_Slice]] = queue.Queue()
    try:
        while (waiting or pending) and not job.stopped.is_set():
            while waiting and len(pending) < SLICES_PER_THREAD * _threads(client):
                pending.append(merge_slice.submit(job.payload, waiting.popleft()))
                pending[-1].add_done_callback(finished.put)
            with contextlib.suppress(queue.Empty):
                future = finished.get(timeout=POLL_SECONDS)
                pending.remove(future)
                job.put(_result(future))
    finally:
        client.cancel([cast(Any, future).wrapped_future for future in pending])
    return Cancelled(message="the coordinator stopped the merge") if job.stopped.is_set() else None


def _worth_repeating(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """A fault that a person has to act on comes back however often a task is repeated."""
    found = state.result(raise_on_failure=False, _sync=True)  # type: ignore[call-overload]
    return not isinstance(found, ConsortiaError)


@task(
    name="merge-modules",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=1,
    retry_condition_fn=_worth_repeating,
)
def merge_slice(payload: bytes, indices: list[int]) -> _Slice:
    """Merge some modules; runs on a worker."""
    inputs = _unpacked(payload)
    # For good, not for the time of the slice: a worker's threads would undo it for one another.
    torch.set_num_threads(1)
    try:
        return [(i, merge_module(inputs, inputs.layout.targets[i])) for i in indices]
    except FileNotFoundError as error:
        raise FederationOperatorError(
            "adapter on a Dask worker",
            expected=f"{error.filename}, spooled by the coordinator on a shared file system",
            found="no such file",
            action="mount the coordinator's workspace at the same path on every worker",
        ) from None


def _packed(inputs: MergeInputs) -> bytes:
    """One value that neither Prefect nor Dask looks into; every silo repeats the same names."""
    # Once computed it goes with the value, so that a worker can compare its own.
    _ = inputs.fingerprint
    return zlib.compress(pickle.dumps(inputs), 1)


@lru_cache(maxsize=1)
def _unpacked(payload: bytes) -> MergeInputs:
    """The inputs on a worker; raises FederationOperatorError where it computes otherwise."""
    # From the coordinator through the scheduler, which unpickles whatever it sends anyway.
    inputs: MergeInputs = pickle.loads(zlib.decompress(payload))  # noqa: S301
    if replace(inputs).fingerprint != inputs.fingerprint:
        raise FederationOperatorError(
            "Dask worker",
            expected="the coordinator's versions of PyTorch and NumPy and its kind of processor",
            found=f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}",
            action="run the workers in the coordinator's environment, on machines of one kind",
        )
    return inputs


def _task_runner(address: str | None, workers: int) -> "DaskTaskRunner":
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as error:
        raise FederationOperatorError(
            "merge on Dask",
            expected="the packages prefect-dask and distributed",
            found=str(error),
            action="pip install consortia[dask]",
        ) from None
    connection = {"timeout": CONNECT_SECONDS}
    if address is not None:
        return DaskTaskRunner(address=address, client_kwargs=connection)
    cluster = {
        "n_workers": workers,
        "threads_per_worker": 1,
        "processes": True,
        "host": "127.0.0.1",
        "dashboard_address": None,
        "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"},
        "security": True,
    }
    return DaskTaskRunner(cluster_kwargs=cluster, client_kwargs=connection)


def _merged(runner: "DaskTaskRunner", job: _Job) -> Iterator[tuple[int, MergedModule]]:
    """Slices as the flow hands them over from its thread.

    A thread, because between two modules the caller goes on in its own Prefect context.
    """
    context = copy_context()
    # Prefect sends the context to the workers, and with it the parameters of the task around the
    # merge: the coordinator, with its keys.
    context.run(TaskRunContext.__var__.set, cast(Any, None))
    thread = threading.Thread(
        target=context.run, args=(_run, runner, job), name="distributed-merge"
    )
    thread.start()
    try:
        while (item := job.outbox.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield from item
    finally:
        job.stopped.set()
        thread.join()


def _run(runner: "DaskTaskRunner", job: _Job) -> None:
    _JOB.set(job)
    run: Any = distributed_merge.with_options(task_runner=cast(Any, runner))
    try:
        run(modules=sum(map(len, job.slices)), slices=len(job.slices))
    except BaseException as error:  # or the coordinator would wait for ever
        job.put(error)
    else:
        job.put(None)


def _client() -> Any:
    """The runner's `distributed.Client`, once a worker is there."""
    context = FlowRunContext.get()
    if context is None:
        raise RuntimeError("the client of a task runner exists only in its flow")
    with _scheduler():
        client = cast("DaskTaskRunner", context.task_runner).client
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    return client


def _threads(client: Any) -> int:
    """Worker threads now; one while every worker is being started again."""
    with _scheduler():
        threads: dict[str, int] = client.nthreads()
    return max(1, sum(threads.values()))


@contextlib.contextmanager
def _scheduler() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # Dask's timeouts and lost connections
        raise FederationOperatorError(
            "Dask scheduler",
            expected=f"one that answers and has a worker within {CONNECT_SECONDS} s",
            found=str(error),
            action="start `dask scheduler` and `dask worker`, or correct the address; "
            "the merge continues where it was",
        ) from None


def _result(future: PrefectFuture[_Slice]) -> _Slice:
    import distributed

    try:
        return future.result()
    except (distributed.KilledWorker, distributed.CancelledError) as error:
        raise FederationOperatorError(
            "Dask workers",
            expected="workers that stay alive for the length of a slice",
            found=str(error),
            action="look at the workers' logs and memory; the merge continues where it was",
        ) from None
