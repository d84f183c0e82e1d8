"""How fast this machine is today, beside the one whose seconds the documentation states.

    OMP_NUM_THREADS=1 python benchmarks/yardstick.py

Times in CPU seconds a training step of a ResNet-18 (batch 4, 128 pixels), a product of two square matrices of 2,048
float32 numbers and the import of torch, the fastest of several turns. A bar in CPU seconds that is written down for the
reference holds here times the ratio that is printed. `seconds()` and `scale()` are for other benchmarks.
"""

import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torchvision
from torch import nn

# An Intel Xeon (Sapphire Rapids, virtual), two cores, one thread, torch 2.11; fastest of five.
REFERENCE = {"training step": 0.170, "product": 0.100, "import": 1.45}
TURNS = 5


def training_step() -> Callable[[], None]:
    torch.manual_seed(0)
    network, images = torchvision.models.resnet18(), torch.randn(4, 3, 128, 128)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def step() -> None:
        nn.functional.cross_entropy(network(images), torch.arange(4)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def product() -> Callable[[], None]:
    left, right = torch.randn(2, 2048, 2048)
    return lambda: torch.matmul(left, right)


def fastest(call: Callable[[], None]) -> float:
    """CPU seconds of this process, after one call that is not timed."""
    call()
    taken = []
    for _ in range(TURNS):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return min(taken)


def seconds_of_command(*arguments: str) -> float:
    """CPU seconds, of the system's too, that Python and all it starts take for these arguments."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return spent() - before


def seconds() -> dict[str, float]:
    """CPU seconds of the three, here and now."""
    imported = min(seconds_of_command("-c", "import torch") for _ in range(TURNS))
    return {"training step": fastest(training_step()), "product": fastest(product()), "import": imported}


def scale(measured: dict[str, float]) -> float:
    """How many times longer than on the reference: the geometric mean of the three."""
    return math.prod(measured[name] / REFERENCE[name] for name in REFERENCE) ** (1 / len(REFERENCE))


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = seconds()
    for name, taken in found.items():
        print(f"{name:14} {taken:7.3f} s here, {REFERENCE[name]:7.3f} s on the reference")
    print(f"here everything takes {scale(found):.2f} times as long")
