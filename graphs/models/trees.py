"""Ensembles of decision trees as plain tensors: fitted by scikit-learn, evaluated by torch, kept in a state dict."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from ...core.errors import QuintetError

BLOCK = 1 << 20  # pairs of a row and a tree that are followed at a time
# Of a file of trees, what following them may cost: steps whatever its size, and more for each node.
FREE_STEPS, STEPS_PER_NODE = 1 << 20, 100
DEEPEST = 10_000  # steps from a root to a leaf


def _two_classes(scores: Float64[Tensor, "rows 1"]) -> Float64[Tensor, "rows 2"]:
    return torch.cat([torch.sigmoid(-scores), torch.sigmoid(scores)], dim=1)


# From the sum of trees to what is predicted, by the name of the link in scikit-learn's losses.
LINKS: dict[str, Callable[[Tensor], Tensor]] = {
    "IdentityLink": lambda scores: scores,
    "LogLink": torch.exp,
    "LogitLink": _two_classes,
    "MultinomialLogit": lambda scores: scores.softmax(1),
}
# What a node of a tree is, and the kind of number that says it.
NODES = {
    "feature": torch.int32,
    "threshold": torch.float64,
    "left": torch.int32,
    "right": torch.int32,
    "missing_left": torch.bool,
    "value": torch.float64,
}
ENSEMBLE = {"roots": torch.int32, "base": torch.float64, "link": torch.int32, "rounded": torch.bool}


class Tree(NamedTuple):
    """One fitted tree by its nodes, of which the first is the root; a leaf has no children (-1)."""

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    value: np.ndarray  # (nodes, outputs)


class TreeEnsemble(nn.Module):
    """link(base + sum over trees of value[leaf(x)]), for rows x of numbers of which some may be missing (NaN).

    From a node a row goes left where x[feature] <= threshold, and where x[feature] is missing if that went left in
    training. What comes out are numbers, or probabilities of classes in the order of scikit-learn's `classes_`.

    An ensemble is empty until it takes over a fitted one or a state dict is loaded, which brings the sizes of its
    tensors: it needs none to be constructed. It takes over random forests and extra trees ("Random Forests", Machine
    Learning 45, 5-32) and gradient boosting on histograms ("LightGBM", NeurIPS 2017), regressors and classifiers, and
    predicts what scikit-learn predicts.

    Nodes of all trees stand one after the other, children after their parents; a leaf is its own child.
    """

    optional_buffers: ClassVar[tuple[str, ...]] = (*NODES, *ENSEMBLE)

    def __init__(self) -> None:
        super().__init__()
        for name in self.optional_buffers:
            self.register_buffer(name, None)
        self.depth = 0

    @classmethod
    def of(cls, estimator: Any, columns: np.ndarray | None = None) -> "TreeEnsemble":
        """The trees of a fitted estimator of scikit-learn, see `take_over`."""
        ensemble = cls()
        ensemble.take_over(estimator, columns)
        return ensemble

    def take_over(self, estimator: Any, columns: np.ndarray | None = None) -> None:
        """Holds the trees of a fitted estimator from now on. Raises QuintetError for one that it cannot evaluate.

        `columns` are the numbers of those columns of a row that it was fitted on, None for all.
        """
        boosted = hasattr(estimator, "_predictors")
        if not boosted and not hasattr(estimator, "estimators_"):
            raise QuintetError(f"a {type(estimator).__name__} holds no trees, or is not fitted")
        trees, base, link = _of_boosting(estimator) if boosted else _of_forest(estimator)
        counts = np.array([len(tree.feature) for tree in trees])
        nodes = _joined(trees, counts)
        if columns is not None:
            nodes["feature"] = np.asarray(columns)[nodes["feature"]]
        tensors = nodes | {
            "roots": counts.cumsum() - counts,
            "base": base,
            "link": list(LINKS).index(link),
            "rounded": not boosted,  # forests compare in float32
        }
        device = None if self.base is None else self.base.device
        kinds = NODES | ENSEMBLE
        self._hold({name: torch.as_tensor(tensors[name], dtype=kinds[name], device=device) for name in kinds})

    @torch.no_grad()
    def forward(self, rows: Float[Tensor, "rows features"]) -> Float64[Tensor, "rows outputs"]:
        """What the ensemble predicts. Raises QuintetError where it is empty or the rows lack a feature it asks for."""
        if self.base is None:
            raise QuintetError("the trees were not fitted")
        if self.wanted > rows.shape[1]:
            raise QuintetError(f"the trees ask for feature {self.wanted}, and rows have {rows.shape[1]}")
        values = (rows.float() if self.compares_rounded else rows).double()
        block = max(1, BLOCK // len(self.roots))
        sums = [self.value[self.leaves(part)].sum(1) for part in values.split(block)]
        return LINKS[self.link_name](self.base + torch.cat(sums))

    @property
    def outputs(self) -> int:
        """Numbers that it predicts of a row; none where it is empty."""
        return 0 if self.base is None else LINKS[self.link_name](self.base[None]).shape[1]

    def leaves(self, rows: Float64[Tensor, "rows features"]) -> Int[Tensor, "rows trees"]:
        """The leaf of each tree at which a row arrives, counted over all trees."""
        node = self.roots.long().expand(len(rows), -1)
        for _ in range(self.depth):
            value = rows.gather(1, self.feature[node].long())
            goes_left = (value <= self.threshold[node]) | (value.isnan() & self.missing_left[node])
            node = torch.where(goes_left, self.left[node], self.right[node]).long()
        return node

    def _hold(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            setattr(self, name, tensor)
        self.depth = _depth(self.left, self.right, self.roots)
        self.wanted = int(self.feature.max()) + 1
        self.link_name, self.compares_rounded = list(LINKS)[int(self.link)], bool(self.rounded)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        stated = {name: state_dict[prefix + name] for name in self.optional_buffers if prefix + name in state_dict}
        if stated:
            _check(stated, prefix)
            device = None if self.base is None else self.base.device
            self._hold({name: tensor.to(device, copy=True) for name, tensor in stated.items()})
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _of_forest(estimator: Any) -> tuple[list[Tree], np.ndarray, str]:
    """The trees of a forest, whose values it averages."""
    trees = [fitted.tree_ for fitted in np.ravel(estimator.estimators_)]
    if isinstance(getattr(estimator, "classes_", None), list):
        raise QuintetError("a forest that classifies by several columns at once is not taken over; fit one a column")
    width = trees[0].value.shape[2] if hasattr(estimator, "classes_") else trees[0].value.shape[1]
    found = [
        Tree(
            tree.feature,
            tree.threshold,
            tree.children_left,
            tree.children_right,
            tree.missing_go_to_left,
            tree.value.reshape(-1, width) / len(trees),
        )
        for tree in trees
    ]
    return found, np.zeros(width), "IdentityLink"


def _of_boosting(estimator: Any) -> tuple[list[Tree], np.ndarray, str]:
    """The trees of boosting on histograms, each of which adds to one output."""
    link = type(estimator._loss.link).__name__
    if link not in LINKS:
        raise QuintetError(f"boosting with the loss {estimator.loss} is not taken over")
    base = np.asarray(estimator._baseline_prediction).ravel()
    found = []
    for trees in estimator._predictors:
        for output, tree in enumerate(trees):
            nodes = tree.nodes
            if nodes["is_categorical"].any():
                raise QuintetError("boosting with categorical features is not taken over; give them as numbers")
            leaf, value = nodes["is_leaf"].astype(bool), np.zeros((len(nodes), len(base)))
            value[:, output] = nodes["value"]
            left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
            found.append(
                Tree(nodes["feature_idx"], nodes["num_threshold"], left, right, nodes["missing_go_to_left"], value)
            )
    return found, base, link


def _joined(trees: list[Tree], counts: np.ndarray) -> dict[str, np.ndarray]:
    """Nodes of all trees, counted over all."""
    joined = {name: np.concatenate([getattr(tree, name) for tree in trees]) for name in Tree._fields}
    own, start = np.arange(counts.sum()), np.repeat(counts.cumsum() - counts, counts)
    leaf = joined["left"] < 0
    for side in ("left", "right"):
        joined[side] = np.where(leaf, own, joined[side] + start)
    joined["feature"] = np.where(leaf, 0, joined["feature"])
    # Infinity parts what is missing from all numbers; the largest number does too, and weights are finite.
    joined["threshold"] = np.nan_to_num(joined["threshold"])
    return joined


def _depth(left: Tensor, right: Tensor, roots: Tensor) -> int:
    """Steps from a root to the farthest leaf; ends because children come after their parents.

    Raises QuintetError for trees that are deeper than any that few thousand rows make.
    """
    inner = left != torch.arange(len(left), device=left.device)
    reached, depth = roots[inner[roots]], 0
    while len(reached):
        below = torch.cat([left[reached], right[reached]])
        reached, depth = below[inner[below]], depth + 1
        if depth > DEEPEST:
            raise QuintetError(f"trees of more than {DEEPEST:,} steps are not evaluated; fit them with max_depth")
    return depth


def _check(stated: Mapping[str, Tensor], prefix: str) -> None:
    """Raises QuintetError for tensors that are no trees: loops, children that are not there, other kinds of numbers."""
    kinds = NODES | ENSEMBLE
    whole = stated.keys() == kinds.keys() and all(stated[name].dtype == kinds[name] for name in kinds)
    if not whole or not _is_forest(stated):
        raise QuintetError(f"the checkpoint is damaged: {prefix.rstrip('.') or 'what it holds'} is no set of trees")


def _is_forest(stated: Mapping[str, Tensor]) -> bool:
    left, right, roots, base = (stated[name] for name in ("left", "right", "roots", "base"))
    nodes, outputs = left.numel(), base.numel()
    shapes = dict.fromkeys(NODES, (nodes,)) | {"value": (nodes, outputs), "base": (outputs,), "link": (), "rounded": ()}
    if any(tuple(stated[name].shape) != shape for name, shape in shapes.items()) or roots.ndim != 1:
        return False
    own = torch.arange(nodes, device=left.device)
    leaf = (left == own) & (right == own)
    below = leaf | ((left > own) & (right > own))
    within = (left < nodes) & (right < nodes) & (stated["feature"] >= 0)
    # Each node has one parent at most, or a file of few nodes could hold paths without number.
    # A root has none.
    reached = torch.cat([left[~leaf], right[~leaf], roots])
    return bool(
        len(roots)
        and below.all()
        and within.all()
        and len(reached.unique()) == len(reached)
        and ((roots >= 0) & (roots < nodes)).all()
        and 0 <= int(stated["link"]) < len(LINKS)
        and all(stated[name].isfinite().all() for name in ("threshold", "value", "base"))
        and _depth(left, right, roots) * len(roots) <= FREE_STEPS + STEPS_PER_NODE * nodes
    )
