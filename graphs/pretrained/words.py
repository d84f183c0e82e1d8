"""Weights of a run on other graphs: a word keeps its row, whatever its number among the words of these graphs."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ...core.weights.layout import Layout, StateDict
from ...core.weights.network import said
from ...core.weights.pretrained import find_weights, read_checkpoint
from ...core.weights.records import RECORD, record_of, restore_description
from ..data.description import GraphDescription

TABLES = {"features.nodes.categories.weight": "node_words", "features.edges.categories.weight": "edge_words"}
Words = Mapping[str, list[str]]
Convert = Callable[[StateDict], StateDict]


def take_words(network: nn.Module, convert: Convert | None) -> None:
    """Makes a network load weights of a run by their words."""
    if convert is not None:
        network.layouts = (*said(network, "layouts"), Layout("by words", r"^features\.\w+\.categories\.", (), convert))


def rows_by_word(which: bool | str, description: GraphDescription) -> Convert | None:
    """What puts the rows of words in a checkpoint in the order of the words of `description`; None for other files.

    A word of these graphs that the run never saw begins as zero, as it counts in a prediction. Raises QuintetError for
    a damaged checkpoint.
    """
    if not isinstance(which, str) or not Path(which).expanduser().exists():
        return None
    path = find_weights(which, {})
    content = read_checkpoint(path)
    if RECORD not in content:
        return None
    record = record_of(content, path)
    if not any(words in record["description"] for words in TABLES.values()):
        return None
    known = restore_description(GraphDescription, record, path)

    def convert(state: StateDict) -> StateDict:
        return {
            key: by_word(value, getattr(known, TABLES[key]), getattr(description, TABLES[key]))
            if key in TABLES
            else value
            for key, value in state.items()
        }

    return convert


def by_word(rows: Tensor, known: Words, wanted: Words) -> Tensor:
    """Rows (words, dim) of all columns of `known`, one column after another, as those of `wanted`; zero for new words.

    Rows that are not as many as the words stay as they are, for whoever compares shapes.
    """
    numbers = {word: at for at, word in enumerate((name, word) for name, words in known.items() for word in words)}
    if len(numbers) != len(rows):
        return rows
    padded = torch.cat([rows, torch.zeros_like(rows[:1])])
    taken = [numbers.get((name, word), len(rows)) for name, words in wanted.items() for word in words]
    return padded[torch.tensor(taken, dtype=torch.long)]
