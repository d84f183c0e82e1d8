"""What a chemist would use instead, for the race in race.py: each learns from a table with smiles, target and split.

Each is called with the table and a seed and returns its predictions of the rows whose split is "test", in their order.
"""

import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from rdkit import Chem
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GINEConv, GPSConv, global_add_pool
from torch_geometric.transforms import AddRandomWalkPE
from torch_geometric.utils import from_smiles

from quintet.graphs.data.molecule.descriptors import descriptors_of, morgan_counts

WALK, DIM, DEPTH = 16, 64, 4


def parts(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    return {part: np.flatnonzero(frame["split"] == part) for part in ("train", "val", "test")}


def mean(frame: pd.DataFrame, seed: int) -> np.ndarray:
    rows = parts(frame)
    return np.full(len(rows["test"]), frame["target"].to_numpy()[rows["train"]].mean())


def forest(frame: pd.DataFrame, seed: int) -> np.ndarray:
    """A random forest of 500 trees on counts of Morgan fragments."""
    counts = morgan_counts(map(Chem.MolFromSmiles, frame["smiles"]))
    return fitted(RandomForestRegressor(500, random_state=seed), counts, frame)


def boosting(frame: pd.DataFrame, seed: int) -> np.ndarray:
    """Gradient boosting as scikit-learn has it by default, on RDKit's two-dimensional descriptors."""
    descriptors, _ = descriptors_of(map(Chem.MolFromSmiles, frame["smiles"]))
    return fitted(HistGradientBoostingRegressor(random_state=seed), descriptors, frame)


def fitted(estimator: object, table: np.ndarray, frame: pd.DataFrame) -> np.ndarray:
    rows, target = parts(frame), frame["target"].to_numpy()
    return estimator.fit(table[rows["train"]], target[rows["train"]]).predict(table[rows["test"]])


class PyGGPS(nn.Module):
    """PyG's GPSConv as its example puts it together: embedded columns and walks, four layers, sum of nodes, a head."""

    def __init__(self, columns: Tensor, edge_columns: Tensor) -> None:
        super().__init__()
        self.nodes = nn.ModuleList(nn.Embedding(int(size), DIM - WALK) for size in columns)
        self.edges = nn.ModuleList(nn.Embedding(int(size), DIM) for size in edge_columns)
        self.walk_norm, self.walk = nn.BatchNorm1d(WALK), nn.Linear(WALK, WALK)
        self.layers = nn.ModuleList(GPSConv(DIM, GINEConv(feedforward(DIM)), heads=4) for _ in range(DEPTH))
        self.head = nn.Sequential(nn.Linear(DIM, DIM // 2), nn.ReLU(), nn.Linear(DIM // 2, 1))

    def forward(self, batch: Batch) -> Tensor:
        looked_up = sum(embedding(batch.x[:, at]) for at, embedding in enumerate(self.nodes))
        x = torch.cat([looked_up, self.walk(self.walk_norm(batch.pe))], 1)
        edges = sum(embedding(batch.edge_attr[:, at]) for at, embedding in enumerate(self.edges))
        for layer in self.layers:
            x = layer(x, batch.edge_index, batch.batch, edge_attr=edges)
        return self.head(global_add_pool(x, batch.batch, len(batch)))[:, 0]


def feedforward(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))


def walked(smiles: str) -> Data:
    graph = from_smiles(smiles)
    return AddRandomWalkPE(WALK, "pe")(graph) if graph.num_edges else graph.update({"pe": torch.zeros(1, WALK)})


def pyg_gps(frame: pd.DataFrame, seed: int, seconds: float) -> np.ndarray:
    """PyG's GPS with AdamW, the rate falling by a cosine over the CPU seconds it is given; the last weights."""
    began = time.process_time()
    torch.manual_seed(seed)
    rows, graphs = parts(frame), [walked(smiles) for smiles in frame["smiles"]]
    target = torch.tensor(frame["target"].to_numpy(), dtype=torch.float32)
    centre, scale = target[rows["train"]].mean(), target[rows["train"]].std()
    for graph, value in zip(graphs, (target - centre) / scale, strict=True):
        graph.y = value
    columns, edge_columns = (torch.cat([graph[name] for graph in graphs]).amax(0) + 1 for name in ("x", "edge_attr"))
    network = PyGGPS(columns, edge_columns)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-5)
    loader = DataLoader([graphs[row] for row in rows["train"]], 32, shuffle=True)
    while (gone := (time.process_time() - began) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = 1e-3 * (0.01 + 0.99 * (1 + np.cos(np.pi * gone)) / 2)
        for batch in loader:
            optimizer.zero_grad()
            F.l1_loss(network(batch), batch.y).backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        found = torch.cat([network(batch) for batch in DataLoader([graphs[row] for row in rows["test"]], 256)])
    return (found * scale + centre).numpy()


def chemprop(frame: pd.DataFrame, seed: int, program: Path, epochs: int) -> np.ndarray:
    """The command of chemprop with its own defaults but for the number of epochs, from an environment of its own."""
    with tempfile.TemporaryDirectory() as folder:
        table, out = Path(folder, "table.csv"), Path(folder, "out")
        frame[["smiles", "target", "split"]].to_csv(table, index=False)
        options = {"data-path": table, "smiles-columns": "smiles", "target-columns": "target", "splits-column": "split"}
        options |= {"task-type": "regression", "epochs": epochs, "output-dir": out, "accelerator": "cpu"}
        options |= {"num-workers": 0, "pytorch-seed": seed}
        command = [
            str(program),
            "train",
            *(str(word) for name, value in options.items() for word in (f"--{name}", value)),
        ]
        subprocess.run(command, check=True, capture_output=True)
        found = pd.read_csv(out / "model_0" / "test_predictions.csv")
    # Rows come in the order in which they stood in the table.
    expected = frame["smiles"][parts(frame)["test"]]
    if found["smiles"].tolist() != expected.tolist():
        raise SystemExit("chemprop returned other molecules than it was to predict")
    return found["target"].to_numpy()
