"""What a network for whole graphs must beat: estimates that need none, kept in its checkpoint as plain tensors.

Of molecules: a forest on counts of Morgan fragments, gradient boosting on RDKit's descriptors, the three nearest by
Tanimoto similarity; of other graphs a forest on what can be counted of them. Beside both the mean, or the shares of the
classes.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped, UInt8
from lightning.pytorch.utilities import rank_zero_only
from rich.progress import track
from torch import Tensor, nn
from torch_geometric.data import Batch

from ...core.data.module import DataModule
from ...core.errors import QuintetError
from ..data.description import GraphDescription
from ..data.statistics import graph_statistics
from ..data.store import GraphStore
from .trees import TreeEnsemble

RDKIT = "rdkit"  # the word for descriptors that the network is told
NEAREST = 3  # training molecules that vote
MOST = 10_000  # training graphs that baselines learn from, and whose fingerprints a checkpoint keeps
AT_A_TIME = 256  # graphs that are described at a time
TREES, NODES = 100, 400_000  # of a forest, and of all forests of a checkpoint about
# What a network is blended with, on descriptors and fragments together.
PARTNERS = ("boosting_on_all", "extra_trees")
BYTES = 256  # of the fingerprint of a molecule, a bit each of 2,048
SEEN = 10  # training molecules that must have a fragment for partners to ask for it


class Nearest(nn.Module):
    """Fingerprints of training molecules with their targets: the mean of the most similar, weighed by similarity.

    Empty until it is fitted or a state dict is loaded.
    """

    optional_buffers: ClassVar[tuple[str, ...]] = ("bits", "targets")

    def __init__(self) -> None:
        super().__init__()
        for name in self.optional_buffers:
            self.register_buffer(name, None)

    def keep(self, bits: UInt8[Tensor, "molecules bytes"], targets: Float[Tensor, "molecules targets"]) -> None:
        """Keeps training molecules; targets are NaN where unknown."""
        self.bits, self.targets = bits, targets.float()

    def similarity(self, bits: UInt8[Tensor, "molecules bytes"]) -> Float[Tensor, " molecules"]:
        """Of each molecule to the most similar training molecule."""
        from ..data.molecule.descriptors import most_similar

        return most_similar(bits, self.bits.cpu()).similarity[:, 0]

    def forward(self, bits: UInt8[Tensor, "molecules bytes"]) -> Float[Tensor, "molecules targets"]:
        """sum_k s_k y_k / sum_k s_k over the nearest whose target is known, NaN where none is."""
        from ..data.molecule.descriptors import most_similar

        found = most_similar(bits, self.bits.cpu(), min(NEAREST, len(self.bits)))
        values, weights = self.targets.cpu()[found.index], found.similarity[..., None] + 1e-6
        known = values.isfinite()
        weights = weights * known
        return (weights * values.nan_to_num(0.0)).sum(1) / weights.sum(1).where(known.any(1), torch.nan)

    def fits(self, outputs: int) -> bool:
        """Whether it is empty, or holds fingerprints of the size that molecules get here, and targets beside them."""
        if self.bits is None and self.targets is None:
            return True
        if self.bits is None or self.targets is None or self.bits.ndim != 2 or not len(self.bits):
            return False
        kinds = (self.bits.dtype, self.targets.dtype) == (torch.uint8, torch.float32)
        return kinds and self.bits.shape[1] == BYTES and tuple(self.targets.shape) == (len(self.bits), outputs)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        # A file brings its own number of molecules.
        for name in self.optional_buffers:
            if (value := state_dict.get(f"{prefix}{name}")) is not None:
                setattr(self, name, torch.empty_like(value))
        super()._load_from_state_dict(state_dict, prefix, *rest)


@dataclass
class Described:
    """What baselines see of some graphs: a table for forests, one for boosting, fingerprints of molecules."""

    counts: Float[np.ndarray, "graphs fragments"]
    descriptors: Float[np.ndarray, "graphs descriptors"] | None = None
    bits: UInt8[Tensor, "graphs bytes"] | None = None

    def table(self, name: str) -> Float[np.ndarray, "graphs columns"]:
        """What the trees of this name read."""
        if name in PARTNERS:
            return np.concatenate([np.nan_to_num(self.descriptors), self.counts], 1)
        return self.descriptors if name == "boosting" else self.counts

    @classmethod
    def joined(cls, parts: Sequence["Described"]) -> "Described":
        """All parts as one."""
        counts = np.concatenate([part.counts for part in parts])
        if parts[0].bits is None:
            return cls(counts)
        descriptors = np.concatenate([part.descriptors for part in parts])
        return cls(counts, descriptors, torch.cat([part.bits for part in parts]))


def _refuse_other_targets(references: "References", _: Any) -> None:
    """Raises QuintetError for a file whose baselines say something of other targets, or know other fingerprints."""
    outputs = len(references.constant)
    # Of yes and no a classifier says both chances.
    widths = {outputs} if references.description.classes else {1, 2} if references.classifies else {1}
    ensembles = [ensemble for several in references.trees.values() for ensemble in several]
    if any(ensemble.outputs not in {0, *widths} for ensemble in ensembles) or not (
        references.nearest is None or references.nearest.fits(outputs)
    ):
        raise QuintetError("the checkpoint is damaged: its baselines are of other targets or molecules than it says")


class References(nn.Module):
    """All baselines of a task on whole graphs.

    Args:
        description: of the training graphs.
        classifies: whether targets are classes or labels.
        wanted: without it nothing is fitted but the fingerprints of molecules.
        partners: fit too what a network is best blended with, `blended`: of molecules boosting and extra trees on
            descriptors and fragments together.
    """

    optional_buffers: ClassVar[tuple[str, ...]] = ("constant",)

    def __init__(
        self, description: GraphDescription, classifies: bool, wanted: bool = True, partners: bool = False
    ) -> None:
        super().__init__()
        self.description, self.classifies = description, classifies
        self.molecules = description.source == "molecules"
        constant = "majority" if classifies else "mean"
        trees = ["forest", "boosting"] if self.molecules else ["forest"]
        with_partners = partners and wanted and self.molecules
        trees += PARTNERS if with_partners else ()
        self.blended: list[str] = [*PARTNERS] if with_partners else trees[:1] if partners and wanted else []
        names = [*trees, *(["nearest"] if self.molecules else []), constant]
        self.names: list[str] = names if wanted else []
        self.models = 1 if description.classes else len(description.target_scale or description.positives)
        self.trees = nn.ModuleDict(
            {name: nn.ModuleList(TreeEnsemble() for _ in range(self.models)) for name in trees if wanted}
        )
        self.nearest = Nearest() if self.molecules else None
        outputs = len(description.classes or description.target_scale or description.positives)
        self.register_buffer("constant", torch.full((outputs,), torch.nan))

        self.register_load_state_dict_post_hook(_refuse_other_targets)

    @property
    def fitted(self) -> bool:
        return bool(self.constant.isfinite().any())

    # Learning

    def fit(self, store: GraphStore, data: DataModule) -> None:
        """Learns from the training graphs, of many from an even choice."""
        began = time.perf_counter()
        chosen = self._chosen(store.graphs["y"])
        parts = chosen.split(AT_A_TIME)
        if len(parts) > 1 and rank_zero_only.rank == 0:
            parts = track(parts, "describing the training graphs for baselines", transient=True)
        seen = Described.joined([self._described(store.take(part), data) for part in parts])
        targets = self._standardised(store.graphs["y"][chosen])
        self._fit_constant(self._standardised(store.graphs["y"]))
        if self.nearest is not None:
            self.nearest.keep(seen.bits, self._as_columns(targets))
        for name, ensembles in self.trees.items():
            self._fit_trees(name, ensembles, seen.table(name), targets)
        if self.names and rank_zero_only.rank == 0:
            seconds = time.perf_counter() - began
            print(f"baselines learned from {len(chosen):,} of {len(store):,} training graphs in {seconds:.0f} s")

    def _chosen(self, y: Tensor) -> Int[Tensor, " chosen"]:
        """An even choice of the training graphs, and one of each class at least."""
        chosen = torch.linspace(0, len(y) - 1, min(len(y), MOST), dtype=torch.float64).round().long()
        if not self.description.classes:
            return chosen
        first = [int((y == label).nonzero()[0]) for label in y.unique().tolist()]
        return torch.cat([chosen, torch.tensor(first)]).unique()

    def _standardised(self, y: Tensor) -> Tensor:
        if self.classifies:
            return y
        scale = torch.tensor(list(self.description.target_scale.values()), dtype=torch.float64)
        return (y.double() - scale[:, 0]) / scale[:, 1]

    def _fit_constant(self, targets: Tensor) -> None:
        self.constant.copy_(self._as_columns(targets).double().nanmean(0).nan_to_num(0.0))

    def _as_columns(self, targets: Shaped[Tensor, "graphs ..."]) -> Float[Tensor, "graphs outputs"]:
        """One class a graph as a column of 0 and 1 for each, NaN where it is unknown; other targets as they are."""
        if targets.ndim > 1:
            return targets
        columns = F.one_hot(targets.clamp(min=0), len(self.constant)).float()
        return columns.masked_fill(targets[:, None] < 0, torch.nan)

    def _fit_trees(self, name: str, ensembles: nn.ModuleList, table: np.ndarray, targets: Tensor) -> None:
        columns = targets[:, None] if targets.ndim == 1 else targets
        asked = np.arange(table.shape[1])
        if name in PARTNERS:
            asked = np.flatnonzero((table != table[:1]).sum(0) >= min(SEEN, len(table) - 1))
        known = columns >= 0 if targets.ndim == 1 else columns.isfinite()
        for at, ensemble in enumerate(ensembles):
            rows, truth = known[:, at].numpy(), columns[known[:, at], at].numpy()
            if self.classifies:
                truth = truth.astype(np.int64)
            # What never changes is told by the constant alone.
            if len(np.unique(truth)) > 1:
                trees = min(TREES, max(20, NODES // (len(truth) * self.models)))
                ensemble.take_over(self._estimator(name, trees).fit(table[rows][:, asked], truth), asked)

    def _estimator(self, name: str, trees: int) -> Any:
        """One of scikit-learn's models, not fitted yet."""
        # Here, because importing them takes a second that no other command should wait for.
        from sklearn import ensemble

        kind = "Classifier" if self.classifies else "Regressor"
        if name == "boosting":
            return getattr(ensemble, f"HistGradientBoosting{kind}")(random_state=0, early_stopping=False)
        if name == "boosting_on_all":
            # A tenth of the columns at each split, and coarse bins: trees that differ, in a fifth of the time.
            options = {"learning_rate": 0.05, "max_iter": 300, "max_leaf_nodes": 15, "min_samples_leaf": 8}
            options |= {"max_features": 0.1, "max_bins": 32, "random_state": 0, "early_stopping": False}
            return getattr(ensemble, f"HistGradientBoosting{kind}")(**options)
        if name == "extra_trees":
            return getattr(ensemble, f"ExtraTrees{kind}")(trees, random_state=0, max_features=0.15)
        if self.classifies:
            return ensemble.RandomForestClassifier(trees, random_state=0)
        return ensemble.RandomForestRegressor(trees, random_state=0, max_features=1 / 3)

    # Estimating

    def forward(self, batch: Batch, data: DataModule) -> dict[str, Float[Tensor, "graphs outputs"]]:
        """What each baseline says of a batch: standardised targets, or probabilities."""
        seen, device = self._described(batch, data), batch.batch.device
        constant = self.constant.to(device).expand(len(batch.ptr) - 1, -1)
        found = {}
        for name in self.names:
            if name in self.trees:
                table = torch.from_numpy(seen.table(name))
                found[name] = self._estimate(self.trees[name], table.to(device))
            elif name == "nearest":
                near = self.nearest(seen.bits).to(device)
                found[name] = near.where(near.isfinite(), constant)
            else:
                found[name] = constant
        return {name: values.float() for name, values in found.items()}

    def _estimate(self, ensembles: nn.ModuleList, table: Tensor) -> Tensor:
        columns = []
        for at, ensemble in enumerate(ensembles):
            if ensemble.base is None:
                own = self.constant if self.description.classes else self.constant[at : at + 1]
                columns.append(own.to(table.device).expand(len(table), -1))
                continue
            values = ensemble(table)
            # Of yes and no the chance of yes.
            columns.append(values[:, -1:] if self.classifies and not self.description.classes else values)
        return torch.cat([column.float() for column in columns], dim=1)

    def similarity(self, batch: Batch, data: DataModule) -> Float[Tensor, " graphs"] | None:
        """Of each molecule to the most similar training molecule; None for other graphs."""
        if self.nearest is None or self.nearest.bits is None:
            return None
        from ..data.molecule.descriptors import morgan_bits

        return self.nearest.similarity(morgan_bits(data.molecules_of(batch.row.tolist())))

    def _described(self, batch: Batch, data: DataModule) -> Described:
        if not self.molecules:
            sizes = self.description.sizes
            return Described(graph_statistics(batch.to("cpu"), sizes).numpy())
        from ..data.molecule.descriptors import descriptors_of, morgan_bits, morgan_counts

        molecules = data.molecules_of(batch.row.tolist())
        bits = morgan_bits(molecules)
        if not self.names:
            return Described(np.empty((len(molecules), 0)), np.empty((len(molecules), 0)), bits)
        computed = RDKIT in (self.description.reading.get("descriptors") or [])
        told = [] if computed else [descriptors_of(molecules).values]
        if (known := getattr(data, "descriptors", None)) is not None:
            # What the network is told boosting is told too; RDKit's are not computed twice.
            place = {row: number for number, row in enumerate(data.read.positions)}
            told.insert(0, known.values[[place[row] for row in batch.row.tolist()]].numpy())
        return Described(morgan_counts(molecules).astype(np.float64), np.concatenate(told, 1), bits)
