"""Networks side by side: what a task asks of one network, and weights from a file of one or of several."""

import pytest
import torch
from torch import nn

from quintet.core.weights.pretrained import load_weights
from quintet.graphs.tasks.ensemble import Ensemble, member_layout


class Small(nn.Module):
    head_keys = ("head.weight", "head.bias")
    no_weight_decay = ("table",)

    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.table, self.first = nn.Parameter(torch.randn(2, 3)), nn.Linear(3, 3)
        self.head = nn.Linear(3, outputs)

    def layer_groups(self):
        return [["table"], ["first"]]

    def forward(self, x):
        return self.head(self.first(x))


@pytest.fixture
def three():
    torch.manual_seed(0)
    return Ensemble([Small() for _ in range(3)])


def test_members_answer_side_by_side_and_what_is_asked_of_one_network_is_said_of_all(three):
    x = torch.randn(4, 3)
    expected = [member(x) for member in three.members]
    assert three(x).shape == (3, 4, 2)
    assert all(torch.equal(found, own) for found, own in zip(three(x), expected))
    assert three.layer_groups() == [[f"members.{at}.{name}" for at in range(3)] for name in ("table", "first")]
    assert set(three.head_keys) == {key for key in three.state_dict() if ".head." in key}
    assert three.no_weight_decay == [f"members.{at}.table" for at in range(3)]


def test_a_network_alone_takes_one_member_of_a_file_and_leaves_a_head_of_another_size(three, tmp_path):
    torch.save(three.state_dict(), tmp_path / "three.pt")
    for number in range(3):
        alone = Small(outputs=5)
        alone.layouts = (member_layout(number),)
        report = load_weights(alone, tmp_path / "three.pt")
        assert torch.equal(alone.first.weight, three.members[number].first.weight)
        assert report.head_replaced == ["head.weight", "head.bias"]


def test_a_file_of_one_network_is_taken_as_it_is(three, tmp_path):
    torch.save(three.members[1].state_dict(), tmp_path / "one.pt")
    alone = Small()
    alone.layouts = (member_layout(0),)
    load_weights(alone, tmp_path / "one.pt")
    assert torch.equal(alone.head.weight, three.members[1].head.weight)
