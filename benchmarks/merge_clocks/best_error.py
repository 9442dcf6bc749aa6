"""The default rule's error over the best possible one, on modules of the benchmark's adapters.

The best error is that of the whole stack's QR and SVD in float64. The largest ratio over the cohort
sizes and a few modules is what counts: random adapters have the flattest spectra there are.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import torch

from aggregator.merge.blas_threads import one_blas_thread
from aggregator.merge.gram import squared_norm
from aggregator.merge.truncation import exact_truncation, sketch_truncation
from aggregator.merge.weighted_sum import WeightedSum
from benchmarks.merge_clocks.samples import adapter_files, inputs_of

COHORTS = (4, 8, 16)
MODULES = (0, 64, 127)


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    options = parser.parse_args()
    worst = 0.0
    for silos in COHORTS:
        inputs = inputs_of(adapter_files(options.directory, silos), "stack_truncate")
        layout = inputs.layout
        for target in (layout.targets[index] for index in MODULES):
            total = WeightedSum(target, inputs.product_summands(target))
            chunk = total.chunk(0)
            left = chunk.b.to(torch.float64) * chunk.c
            with one_blas_thread():
                norm = squared_norm(total)
                found = sketch_truncation(total, norm, layout.rank, layout.scaling, inputs.seed)
            best = exact_truncation(left, chunk.a.to(torch.float64), layout.rank, layout.scaling)
            ratio = (best.squared_norm - found.kept_norm) / best.discarded_norm
            worst = max(worst, math.sqrt(ratio))
    sys.stdout.write(json.dumps({"default_error_over_optimal": worst}) + "\n")


if __name__ == "__main__":
    main()
