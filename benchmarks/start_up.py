"""CPU seconds until a command answers: lists, and `quintet fit` until its first batch beside the import of Lightning.

    OMP_NUM_THREADS=1 python benchmarks/start_up.py

Everything runs in a process of its own, the fastest of three. Bars: a list 1.5 s on the reference of yardstick.py, the
first batch 1.5 times `import torch, lightning.pytorch` of the same run.
"""

import os
import tempfile

from yardstick import scale, seconds, seconds_of_command

TURNS = 3
LIST = "import sys; from quintet.cli import main; sys.exit(main(['list', '{}']))"
FIT = """
import os
from quintet.core.learning.task import Task
Task.training_step = lambda *arguments: os._exit(0)
from quintet.cli import main
main(["fit", "experiment={}", "trainer.accelerator=cpu"])
"""


def fastest(program: str) -> float:
    return min(seconds_of_command("-c", program) for _ in range(TURNS))


if __name__ == "__main__":
    here = scale(seconds())
    for kind in ("models", "mixers", "experiments", "data"):
        taken = fastest(LIST.format(kind))
        print(f"list {kind:12} {taken:5.2f} s, {taken / here:5.2f} s on the reference; at most 1.50")
    plain = fastest("import torch, lightning.pytorch")
    print(f"import torch, lightning.pytorch {plain:.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for experiment in ("vision/digits", "timeseries/sunspots"):
            taken = fastest(FIT.format(experiment))
            print(
                f"fit {experiment} to its first batch {taken:.2f} s, {taken / plain:.2f} times the import; at most 1.50"
            )
