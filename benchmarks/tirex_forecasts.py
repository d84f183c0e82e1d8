"""Time of TiRex's forecasts against tirex-ts's, from the same random weights on the same series.

    OMP_NUM_THREADS=2 python benchmarks/tirex_forecasts.py [--rounds 7]

tirex-ts fills every context up to 2048 steps. Ours is measured as it comes, filled up to whole patches, and filled up
likewise, so that both read as many tokens. The sides take turns within each round; ratios are medians of those of the
rounds. Processor time adds up the threads and is the steadier figure on a busy machine.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from tirex.models.tirex import TiRexZero
from torch import nn

from quintet.core.weights.registry import create_model

BLOCKS = {"all_slstm": True, "embedding_dim": 512, "num_blocks": 12, "num_heads": 4, "return_last_states": True}
SIZES = {
    "model_config": {
        "input_patch_size": 32,
        "output_patch_size": 32,
        "quantiles": [level / 10 for level in range(1, 10)],
        "input_ff_dim": 2048,
        "block_kwargs": BLOCKS | {"vocab_size": 0},
    },
    "train_ctx_len": 2048,
}
# Series, steps before, steps to forecast, and patches tirex-ts forecasts in one pass (1 is its default).
CASES = [(8, 512, 64, 1), (8, 512, 64, 2), (8, 512, 256, 8), (8, 512, 256, 1), (1, 512, 64, 2)]


def both(folder: Path) -> tuple[nn.Module, dict[str, nn.Module]]:
    """tirex-ts, and ours with its weights and either padding."""
    reference = TiRexZero(backend="torch", **SIZES).eval()
    torch.manual_seed(0)
    for name, parameter in reference.named_parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, float("norm" in name), 0.1)
        else:
            nn.init.normal_(parameter, std=0.7 * parameter.shape[-1] ** -0.5)
    torch.save({"hyper_parameters": SIZES, "state_dict": reference.state_dict()}, folder / "model.ckpt")
    ours = {
        padding: create_model(
            "timeseries/tirex", pretrained=str(folder / "model.ckpt"), accept_license=True, padding=padding
        ).eval()
        for padding in ("patch", "context")
    }
    return reference, ours


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        reference, ours = both(Path(folder))
    for series, steps, horizon, passes in CASES:
        x = torch.randn(series, steps).cumsum(1)
        theirs = {"context": x, "prediction_length": horizon, "max_accelerated_rollout_steps": passes}
        sides = {"tirex-ts": partial(reference.forecast, **theirs)}
        sides |= {padding: partial(model, x.unsqueeze(-1), horizon=horizon) for padding, model in ours.items()}
        times = {name: [] for name in sides}
        for turn in range(1 + rounds):
            for name in sides if turn % 2 else reversed(sides):
                wall, processor = time.perf_counter(), time.process_time()
                sides[name]()
                if turn:
                    times[name].append((time.perf_counter() - wall, time.process_time() - processor))
        print(f"{series} series, {steps} steps, {horizon} ahead, {passes} patches a pass of tirex-ts")
        for clock, kind in enumerate(("wall", "processor")):
            first, *rest = ([call[clock] for call in times[name]] for name in sides)
            line = f"  {kind:9}: tirex-ts {1e3 * statistics.median(first):.0f} ms"
            for padding, own in zip(ours, rest):
                ratio = statistics.median(their / mine for their, mine in zip(first, own))
                line += f"; ours, padding={padding} {1e3 * statistics.median(own):.0f} ms, {ratio:.1f} times faster"
            print(line, flush=True)


if __name__ == "__main__":
    main()
