"""Clock (b): from objects in storage to the published adapter, next to the floor.

The floor is what no aggregator on this storage can go below: GET and SHA-256 of the same bytes and
PUT of one adapter, by the same client with the same number of connections, with nothing written
to disk. One SeaweedFS on loopback serves all; every run fetches every object again.
"""

import argparse
import hashlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aggregator.evidence.transfers import several_at_a_time
from aggregator.merge.adapter_merge import merge_adapters
from benchmarks.merge_clocks.samples import adapter_files, inputs_of
from data_contracts.protocol.artifact import ArtifactRef, artifact_of_file
from data_contracts.protocol.bucket_layout import blob_key, plans_bucket
from data_contracts.protocol.records.merge_spec import MergeRule
from infra.stack.local_stack import add_federation
from infra.stack.seaweedfs import start_object_storage
from infra.storage.s3_bucket import S3Bucket

FEDERATION = "bench"
READ_BYTES = 1024 * 1024


def main() -> None:
    """Upload once, then time floor and rules in turn; medians of RUNS rounds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--silos", type=int, default=16)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    files = adapter_files(options.directory, options.silos)
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        storage = start_object_storage(Path(name) / "storage")
        try:
            settings = add_federation(storage, FEDERATION)
            bucket = S3Bucket(settings, plans_bucket(FEDERATION))
            for path, ref in files:
                bucket.put_blob(path, ref)
            clock = StorageClock(bucket, [ref for _, ref in files], Path(name))
            timed: dict[str, list[float]] = {}
            for _ in range(options.runs):
                for what, run in clock.runs().items():
                    began = time.perf_counter()
                    run()
                    timed.setdefault(what, []).append(time.perf_counter() - began)
        finally:
            storage.stop()
    figures = {what: statistics.median(seconds) for what, seconds in timed.items()}
    sys.stdout.write(json.dumps(figures) + "\n")


class StorageClock:
    """The things that are timed, on one bucket."""

    def __init__(self, bucket: S3Bucket, refs: list[ArtifactRef], directory: Path) -> None:
        self._bucket = bucket
        self._refs = refs
        self._directory = directory
        self._puts = 0

    def runs(self) -> dict[str, Callable[[], None]]:
        """The floor, the plain average and the default rule."""
        return {
            "floor": self._floor,
            "average": lambda: self._merge("average"),
            "default": lambda: self._merge("stack_truncate"),
        }

    def _floor(self) -> None:
        digests = several_at_a_time(self._digest, self._refs)
        if digests != [ref.digest for ref in self._refs]:
            raise SystemExit("storage gave other bytes than were put there")
        path = self._directory / "one-adapter"
        self._put(path, self._refs[0].size)

    def _digest(self, ref: ArtifactRef) -> str:
        digest = hashlib.sha256()
        for chunk in self._bucket.stream(blob_key(ref.digest), 0, ref.size):
            digest.update(chunk)
        return digest.hexdigest()

    def _put(self, path: Path, size: int) -> None:
        """PUT of fresh bytes: storage takes a blob that it has already without a transfer."""
        self._puts += 1
        if not path.exists():
            path.write_bytes(np.random.default_rng(0).bytes(size))
        with path.open("rb+") as file:
            file.write(self._puts.to_bytes(8, "little"))
        self._bucket.put_blob(path, artifact_of_file(path))

    def _merge(self, rule: MergeRule) -> None:
        spool = Path(tempfile.mkdtemp(dir=self._directory))
        try:
            paths = several_at_a_time(lambda ref: self._fetch(ref, spool), self._refs)
            self._puts += 1
            inputs = inputs_of(list(zip(paths, self._refs, strict=True)), rule, self._puts)
            merged = merge_adapters(inputs, spool / "merged.safetensors")
            self._bucket.put_blob(spool / "merged.safetensors", merged.adapter)
        finally:
            shutil.rmtree(spool)

    def _fetch(self, ref: ArtifactRef, spool: Path) -> Path:
        path = spool / ref.digest
        self._bucket.download_blob(ref, path)
        return path


if __name__ == "__main__":
    main()
