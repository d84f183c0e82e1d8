"""Writes docs/kernels.md, the operations as their specifications tell with the measurements, and docs/mixers.md.

python benchmarks/write_docs.py
"""

import inspect
from pathlib import Path

from quintet.core.catalogue import MixerRow, listed_mixers
from quintet.core.weights.registry import mixer_part
from quintet.kernels._spec import list_specs, operations_table

ROOT = Path(__file__).resolve().parents[1]


def document() -> str:
    ratios = (ROOT / "benchmarks/results/cpu_ratios.md").read_text().strip()
    return f"""# Kernels

This file is written by `python benchmarks/write_docs.py` from the specifications in `kernels/` and the results in
`benchmarks/results/`; edit those.

{len(list_specs())} operations, one file each. Every operation has a *reference*, the obvious form, which is the oracle
of its tests; most have a faster form in plain *torch*, which is what a CPU runs, and a *Triton* form, forward and
backward, which is what a GPU runs. `backend=None` chooses: Triton for CUDA tensors that its kernel can serve, torch
otherwise; where Triton cannot serve a call, that is logged once, and `backend="triton"` raises an error that says why.

```python
from quintet.kernels import explain
from quintet.kernels.rms_norm import rms_norm

y = rms_norm(x, weight)
print(explain("rms_norm", x, weight))  # each backend, and why it does not serve this call
```

{operations_table()}

## On the CPU

{ratios}

`quintet bench kernels [operation ...]` times every operation and, from a checkout of the repository, the published
implementations that are installed (`benchmarks/peers.py`) against the floor of the machine, and writes a table and a
picture.

## On a GPU

**No figure of a GPU was measured for this table.** The Triton kernels are compiled for Ampere and Hopper, and run by
Triton's interpreter against the references, in the tests; how fast they are is not known, and nothing is claimed.
`benchmarks/gpu.sh` measures it: the kernels must first agree with the references in bfloat16 at the sizes that are
timed, then they are timed against liger-kernel, fla-core, mlstm-kernels, FlexAttention, torch.compile and the copy
bandwidth and matrix product rate of the same run. `quintet bench kernels dtype=bfloat16` does so for single operations.
"""


def mixers() -> str:
    """The cheat sheet of all mixers, from what their classes say."""
    return f"""# Mixers

This file is written by `python benchmarks/write_docs.py` from the classes of `core`; edit those.

A mixer moves information between tokens. Each goes into any model by its word: `model/mixer=hedgehog` on the command
line, `mixer="hedgehog"` in Python. `quintet list mixers` prints what each is in plain words. Cost is of n tokens;
causal are those whose tokens see none after them, streaming those that go on from a state, as they are by default.

| word | what | formula | grids | causal | streaming | cost | paper |
|---|---|---|---|---|---|---|---|
{chr(10).join(mixer_line(row) for row in listed_mixers())}
"""


def mixer_line(row: MixerRow) -> str:
    part = mixer_part(row.name)
    first, second, *_ = [*inspect.getdoc(part).split("\n\n"), ""]
    # A formula of several lines goes on in the next paragraph, up to its full stop.
    formula = first if first.endswith(".") else f"{first} {second.split('. ')[0].rstrip('.')}."
    formula = " ".join(formula.split()).replace("|", "\\|")
    cells = (f"`{row.name}`", row.what, formula, row.grids, row.causal, row.streaming, row.cost, part.paper)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    (ROOT / "docs/mixers.md").write_text(mixers())
    (ROOT / "docs/kernels.md").write_text(document())
