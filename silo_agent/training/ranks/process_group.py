"""This process as one of the job's ranks: device, threads, communication, memory."""

import os
import resource
import sys
from collections.abc import Callable
from typing import TypeVar, cast

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.constants import default_pg_timeout

from silo_agent.training.engine_spec import Device
from silo_agent.training.processes.rank_processes import RENDEZVOUS_VARIABLE
from silo_agent.training.ranks.meeting import store_of_nodes

T = TypeVar("T")


def join_ranks(device: Device, threads: int) -> None:
    """Set this process up for its rank and meet the others; returns when all are there."""
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.set_num_threads(threads)
    # DeepSpeed would compile a shared-memory all-reduce at this point (a minute with g++ and the
    # Python headers, and a lock that a killed build leaves behind). Only its inference uses it.
    deepspeed.ops.__compatible_ops__ = {}
    backend = "nccl" if device == "cuda" else "gloo"
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = store_of_nodes(rank, ranks, default_pg_timeout)
    if store is None and (rendezvous := os.environ.get(RENDEZVOUS_VARIABLE)):
        # As a store, because a path is no URL: one with `?` or `#` in it would be cut there.
        store = dist.FileStore(rendezvous, ranks)  # type: ignore[attr-defined]
    if store is not None:
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=ranks, timeout=default_pg_timeout
        )
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, rank=rank, world_size=ranks)


def of_first_rank(find: Callable[[], T]) -> T:
    """What the first rank finds, told to all: clocks differ, and another machine may see an older
    file."""
    found = [find() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(found)
    return cast(T, found[0])


def peak_rss_bytes() -> int:
    """Largest resident memory over the ranks since they started."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = torch.tensor(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    if dist.get_backend() == "nccl":
        peak = peak.cuda()
    dist.all_reduce(peak, op=dist.ReduceOp.MAX)
    return int(peak.item())


def gpu_memory_bytes() -> int | None:
    """The most that PyTorch has had allocated on this rank's GPU; None where it uses none."""
    has_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return torch.cuda.max_memory_allocated() if has_gpu else None
