"""What a model must know of the graphs it was trained on: it travels in the checkpoint."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class GraphDescription:
    """What a task knows of the graphs it was trained on.

    A column of words becomes codes: its i-th word is code i + 1, and 0 stands for a word that training never saw. A
    column of numbers is standardised with the mean and the standard deviation of the training part, (x - mean) / std,
    where the standard deviation is 1 for a column that never changes. Descriptors of molecules are clipped first.

    Args:
        source: what the files hold: "molecules", "graphs" (many), "nodes" or "links" (of one large graph).
        node_words: the words of each column of words of the nodes.
        node_numbers: mean and standard deviation of each column of numbers of the nodes.
        edge_words: of the edges likewise.
        edge_numbers: of the edges likewise.
        graph_numbers: of numbers that describe a whole graph likewise; of descriptors of a molecule, which are clipped,
            mean, standard deviation, least and largest value.
        encodings: names and widths of encodings of nodes, e.g. {"random_walk": 20, "laplacian": 8}.
        directed: an edge leads in the direction in which it was given; else both ways.
        targets: names of what is predicted.
        target_scale: mean and standard deviation of each target that is a number.
        classes: training samples of each class, where a sample has one of several classes.
        positives: training samples of which each target is 1, where targets are 0, 1 or unknown.
        largest: nodes of the largest training graph.
        reading: options that new files must be read with as the training files were.
    """

    source: str
    node_words: dict[str, list[str]] = field(default_factory=dict)
    node_numbers: dict[str, list[float]] = field(default_factory=dict)
    edge_words: dict[str, list[str]] = field(default_factory=dict)
    edge_numbers: dict[str, list[float]] = field(default_factory=dict)
    graph_numbers: dict[str, list[float]] = field(default_factory=dict)
    encodings: dict[str, int] = field(default_factory=dict)
    directed: bool = False
    targets: list[str] = field(default_factory=list)
    target_scale: dict[str, list[float]] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    positives: dict[str, int] = field(default_factory=dict)
    largest: int = 0
    reading: dict[str, str | int | float | bool | list[str] | None] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, Any]:
        """Arguments of a network that follow from the data, but for its outputs."""
        return {
            "node_categories": [len(words) for words in self.node_words.values()],
            "node_values": len(self.node_numbers),
            "edge_categories": [len(words) for words in self.edge_words.values()],
            "edge_values": len(self.edge_numbers),
            "graph_values": len(self.graph_numbers),
            "encodings": dict(self.encodings),
        }
