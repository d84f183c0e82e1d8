"""Molecules of a table as graphs, in the plainest way, for benchmarks of networks alone."""

import csv
from pathlib import Path

import torch
from rdkit import Chem, RDLogger
from torch_geometric.data import Data
from torch_geometric.transforms import AddRandomWalkPE

from quintet.graphs import GraphStore

LEVELS = {
    "node_categories": "nodes",
    "random_walk": "nodes",
    "edge_categories": "edges",
    "y": "graphs",
}
STEPS = 20


def graph_of(molecule: Chem.Mol, target: float) -> Data:
    """Elements and kinds of bonds, each bond both ways, and random walks of 20 steps."""
    elements = torch.tensor([[min(atom.GetAtomicNum(), 27) + 1] for atom in molecule.GetAtoms()])
    bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), int(bond.GetBondType())) for bond in molecule.GetBonds()]
    ends = torch.tensor([[a, b] for a, b, _ in bonds] + [[b, a] for a, b, _ in bonds]).view(-1, 2).T
    kinds = torch.tensor([min(kind, 3) + 1 for *_, kind in bonds] * 2).view(-1, 1)
    data = Data(edge_index=ends, node_categories=elements, edge_categories=kinds, y=torch.tensor([[target]]))
    data.num_nodes = len(elements)
    return AddRandomWalkPE(STEPS, "random_walk")(data)


def read(path: Path, smallest: int = 9, largest: int = 38) -> list[Data]:
    """Graphs of the molecules with so many atoms of a table with columns SMILES and logp."""
    RDLogger.DisableLog("rdApp.*")
    with open(path, encoding="utf-8") as file:
        rows = [(Chem.MolFromSmiles(row["SMILES"]), float(row["logp"])) for row in csv.DictReader(file)]
    kept = [(m, y) for m, y in rows if m is not None and smallest <= m.GetNumAtoms() <= largest]
    return [graph_of(molecule, target) for molecule, target in kept]


def store_of(graphs: list[Data]) -> GraphStore:
    """The same as a store."""
    return GraphStore.of(graphs, LEVELS)
