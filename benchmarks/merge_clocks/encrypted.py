"""What encrypted adapters cost a merge, in CPU time, with and without in turn within one run.

After arrival, which is what silos wait for when the last has submitted: the merge of files that lie
opened on the disk, and the candidate on its way into storage (encrypted to every silo and the
coordinator, or as it is). And the arrival itself, which goes on while others still train: bytes
from storage to a file that was compared with its digest, opened on the way or not.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from aggregator.merge.adapter_merge import merge_adapters
from benchmarks.merge_clocks.samples import adapter_files, inputs_of
from data_contracts.protocol.artifact import ArtifactRef, artifact_of_file
from infra.disk.blob_files import read_parts, receive_blob
from infra.encryption.encrypted_files import encrypt_file, opener
from infra.encryption.identities import new_identity

PART_BYTES = 1024 * 1024
Files = list[tuple[Path, ArtifactRef]]


def main() -> None:
    """Both ratios as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--silos", type=int, default=16)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    figures = {
        "encrypted_merge_ratio": encrypted_merge_ratio(
            options.directory, options.silos, options.runs
        ),
        "encrypted_arrival_ratio": encrypted_arrival_ratio(options.directory, options.runs),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


def encrypted_merge_ratio(directory: Path, silos: int = 16, runs: int = 3) -> float:
    """CPU time of merge and storing the candidate where it is encrypted, over that where it is not.

    The default rule, over sample adapters of so many `silos`, made in `directory` where they lack.
    """
    files = adapter_files(directory, silos)
    recipients = [new_identity().recipient for _ in range(silos + 1)]

    def merged(into: Path) -> ArtifactRef:
        return merge_adapters(inputs_of(files, "stack_truncate", 1), into).adapter

    def plain(scratch: Path) -> None:
        _sent(scratch / "merged", merged(scratch / "merged"))

    def encrypted(scratch: Path) -> None:
        ref = merged(scratch / "merged")
        named = encrypt_file(scratch / "merged", ref, scratch / "ciphertext", recipients)
        _sent(scratch / "ciphertext", named.stored)

    return _ratio(encrypted, plain, directory, runs)


def encrypted_arrival_ratio(directory: Path, runs: int = 3) -> float:
    """CPU time of one adapter's way from storage to a verified file, opened on the way over not."""
    ((path, ref),) = adapter_files(directory, 1)
    identity = new_identity()
    with tempfile.TemporaryDirectory(dir=directory) as name:
        ciphertext = Path(name) / "ciphertext"
        named = encrypt_file(path, ref, ciphertext, [identity.recipient])

        def plain(scratch: Path) -> None:
            receive_blob(_chunks(path), ref, scratch / "arrived")

        def encrypted(scratch: Path) -> None:
            receive_blob(_chunks(ciphertext), named, scratch / "arrived", opener([identity]))

        return _ratio(encrypted, plain, directory, runs)


def _ratio(
    one: Callable[[Path], None], other: Callable[[Path], None], directory: Path, runs: int
) -> float:
    """Of the medians; the two in turn, so that what else runs on the machine is in both."""
    seconds: dict[Callable[[Path], None], list[float]] = {one: [], other: []}
    for work in (other, one) * (runs + 1):
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            began = time.process_time()
            work(Path(scratch))
            seconds[work].append(time.process_time() - began)
    # The first of each warms caches and libraries.
    taken = {work: statistics.median(found[1:]) for work, found in seconds.items()}
    return taken[one] / taken[other]


def _sent(path: Path, ref: ArtifactRef) -> None:
    """As a client reads and hashes a file that it uploads."""
    if artifact_of_file(path) != ref.plain:
        raise SystemExit("a merge is not what its reference says")
    for _ in read_parts(path, ref, PART_BYTES):
        continue


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(PART_BYTES):
            yield chunk


if __name__ == "__main__":
    main()
