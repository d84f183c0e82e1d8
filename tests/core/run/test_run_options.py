"""Options of every run."""

import pytest

from quintet.core.errors import QuintetError
from quintet.core.run.run_options import check_seed, check_trainer, packages


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, True, False, None])
def test_seeds(seed):
    check_seed(seed)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "abc", [1]])
def test_what_is_no_seed(seed):
    with pytest.raises(QuintetError, match=r"^seed is .*; give a whole number from 0 to 4294967295$"):
        check_seed(seed)


def test_packages_are_names():
    assert packages(None) == []
    assert packages("mine") == ["mine"]
    assert packages(["mine", "mine.nets"]) == ["mine", "mine.nets"]
    for wrong in (7, [7], "a b", "../a", True, {"a": 1}):
        with pytest.raises(QuintetError, match="give the name of a package of yours"):
            packages(wrong)


def test_numbers_that_lightning_takes_and_no_run_bears():
    check_trainer({"check_val_every_n_epoch": 1, "gradient_clip_val": None, "logger": True, "callbacks": None})
    for name, value in (("check_val_every_n_epoch", 0), ("gradient_clip_val", -0.1), ("accumulate_grad_batches", 0)):
        with pytest.raises(QuintetError, match=f"trainer.{name} is {value}; give at least "):
            check_trainer({name: value})
    for name in ("logger", "callbacks", "default_root_dir"):
        with pytest.raises(QuintetError, match=f"trainer.{name} is not taken: choose with"):
            check_trainer({name: False})
