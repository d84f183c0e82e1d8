#!/usr/bin/env bash
# On a machine with a GPU: every kernel against its reference and its peers, in bfloat16 and in float32.
#
#     pip install -e '.[test,peers]' liger-kernel && benchmarks/gpu.sh [FOLDER]
#
# First the kernels are run at the sizes that are then timed and compared with the references in float64; an operation
# that is wrong by more than its tolerance is not timed. Results: FOLDER/<dtype>/results.{json,md,png}.
set -euo pipefail
cd "$(dirname "$0")/.."
output=${1:-benchmarks/results/gpu}

python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "no GPU that torch can use was found")'
for dtype in bfloat16 float32; do
    quintet bench kernels dtype=$dtype output="$output/$dtype"
done
