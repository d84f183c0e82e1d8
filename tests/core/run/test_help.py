"""All options of a configuration, with their defaults."""

import torch

from quintet.core.run.help import every_option, options_of


class Net:
    def __init__(self, dim, rate=0.1, act=torch.relu, sizes=(1, 2), kind=dict, inner=None):
        """Takes what it is given."""


def test_every_argument_is_shown_as_given_or_by_default():
    path = f"{__name__}.Net"
    node = {"class_path": path, "init_args": {"rate": 0.5, "inner": {"class_path": path, "init_args": {"dim": 3}}}}
    shown = every_option([node, 7])[0]["init_args"]
    assert (shown["dim"], shown["rate"], shown["sizes"], shown["kind"]) == ("???", 0.5, [1, 2], "builtins.dict")
    assert shown["inner"]["init_args"] | {"act": 0} == options_of(Net, {"dim": 3}) | {"act": 0}
    assert shown["inner"]["init_args"]["dim"] == 3
    assert every_option({"a": None}) == {"a": None}
