"""Options of every run that are checked before anything is built: the seed, trusted packages, the Trainer's numbers."""

from collections.abc import Mapping
from typing import Any

from ..errors import QuintetError

SMALLEST = {  # of the Trainer's arguments, where Lightning takes any number
    "check_val_every_n_epoch": 1,
    "accumulate_grad_batches": 1,
    "gradient_clip_val": 0,
    "num_sanity_val_steps": -1,
    "log_every_n_steps": 0,
    "min_epochs": 0,
    "min_steps": 0,
}


# Arguments of the Trainer's that are given otherwise.
TAKEN = {"callbacks": "callbacks=GROUP", "logger": "logger=GROUP", "default_root_dir": "run_dir=FOLDER"}


def check_trainer(arguments: Mapping[str, Any]) -> None:
    """Raises QuintetError for a number of the Trainer's that would end in an error within the run, or in nonsense."""
    for name, option in TAKEN.items():
        if arguments.get(name) not in (None, True):
            raise QuintetError(f"trainer.{name} is not taken: choose with {option}")
    for name, smallest in SMALLEST.items():
        if isinstance(value := arguments.get(name), int | float) and value < smallest:
            raise QuintetError(f"trainer.{name} is {value}; give at least {smallest}")


def packages(trust: Any) -> list[str]:
    """The packages that `trust` names. Raises QuintetError where it is no name and no list of names."""
    names = [] if trust is None else trust if isinstance(trust, list) else [trust]
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise QuintetError(f"trust is {name!r}; give the name of a package of yours: trust=my_package")
    if names:
        from ..weights.trusted import check_trust  # imports torch, which listing names does without

        check_trust(names)
    return names


def check_seed(seed: Any) -> None:
    """Raises QuintetError for what is no seed; True stands for one drawn anew, False and None for none."""
    if seed is None or isinstance(seed, bool) or (isinstance(seed, int) and 0 <= seed < 2**32):
        return
    raise QuintetError(f"seed is {seed}; give a whole number from 0 to {2**32 - 1}")
