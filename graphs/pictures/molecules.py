"""Molecules before training: a sheet of drawings with their targets, and histograms of the targets."""

import io
from collections import Counter

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from rdkit import Chem
from rdkit.Chem.Draw import rdMolDraw2D

from ...core.pictures.charts import shortened
from ...core.pictures.palette import BLUE, GREEN, NEUTRAL, ORANGE
from ..data.molecule.examination import MoleculeExamination
from ..data.molecule.smiles import silent

COLUMNS, ROWS = 6, 4  # molecules of a sheet
SIDE = 300  # pixels of a drawing
MOST_TARGETS = 12  # histograms
BARS = 30
LARGEST_DRAWN = 150  # atoms, beyond which nothing is seen in a drawing of this size
COLOURS = {"train": BLUE, "val": ORANGE, "test": GREEN}


def drawing(smiles: str, side: int = SIDE) -> Image.Image:
    """The structural formula of a molecule, as a picture of `side` pixels."""
    with silent():
        molecule = Chem.MolFromSmiles(smiles)
        canvas = rdMolDraw2D.MolDraw2DCairo(side, side)
        canvas.drawOptions().useBWAtomPalette()
        canvas.drawOptions().padding = 0.03
        canvas.drawOptions().fixedBondLength = side / 9  # at most: small molecules are not blown up
        rdMolDraw2D.PrepareAndDrawMolecule(canvas, molecule)
        canvas.FinishDrawing()
    return Image.open(io.BytesIO(canvas.GetDrawingText())).convert("RGB")


def molecule_sheet(found: MoleculeExamination, seed: int = 0) -> Figure:
    """Some molecules of the table, those of the lowest targets first.

    Args:
        found: the examination, with at least one molecule.
        seed: of the choice.
    """
    read = found.molecules
    drawn = [number for number, nodes in enumerate(read.store.node_counts.tolist()) if nodes <= LARGEST_DRAWN]
    chosen = np.random.default_rng(seed).permutation(drawn).astype(int)
    chosen = _of_all_classes(found, chosen)[: COLUMNS * ROWS]
    values = found.targets.values[[read.positions[number] for number in chosen], 0]
    chosen, values = chosen[np.argsort(values, kind="stable")], np.sort(values, kind="stable")
    rows = max(1, -(-len(chosen) // COLUMNS))
    figure = Figure(figsize=(2.1 * COLUMNS, 2.45 * rows + 0.5), layout="constrained")
    ordered = f", by {shortened(found.roles.targets[0], 40)}" if found.roles.targets else ""
    title = f"{shortened(found.table.where.rsplit('/', 1)[-1], 50)}: {len(chosen)} of {len(read.positions):,} molecules"
    figure.suptitle(title + ordered, fontsize=12, parse_math=False)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, number, value in zip(panels, chosen, values, strict=False):
        panel.imshow(drawing(read.canonical[number]), interpolation="antialiased")
        panel.set_title(_caption(found, int(number), value), fontsize=9, parse_math=False, color=NEUTRAL)
    return figure


def _of_all_classes(found: MoleculeExamination, numbers: np.ndarray) -> np.ndarray:
    """Molecules in another order: where targets are classes, one of each class after the other."""
    if found.roles.kind not in ("classes", "labels"):
        return numbers
    seen: Counter[float] = Counter()
    turns = []
    for number in numbers:
        value = float(np.nan_to_num(found.targets.values[found.molecules.positions[number], 0], nan=np.inf))
        turns.append(seen[value])
        seen[value] += 1
    return numbers[np.argsort(turns, kind="stable")]


def _caption(found: MoleculeExamination, number: int, value: float) -> str:
    """What names a molecule, and its first target."""
    position = found.molecules.positions[number]
    given = found.table.frame[found.roles.id].iloc[position] if found.roles.id else ""
    name = shortened(given or f"{found.table.unit} {found.table.numbers[position]}", 24)
    if not found.roles.targets:
        return name
    told = "not measured" if np.isnan(value) else f"{value:.4g}"
    if found.targets.words and not np.isnan(value):
        told = shortened(found.targets.words[int(value)], 24)
    return f"{name}\n{told}"


def target_histograms(found: MoleculeExamination) -> Figure:
    """How often each value of each target was measured, part by part where there are parts."""
    names = found.roles.targets[:MOST_TARGETS]
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(max(5.0, 3.6 * columns), 2.8 * rows + 0.4), layout="constrained")
    more = len(found.roles.targets) - len(names)
    title = "targets" + (f", {more} more not shown" if more else "")
    figure.suptitle(title, fontsize=12)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    for at, (panel, name) in enumerate(zip(panels, names, strict=False)):
        _histogram(panel, found, at)
        panel.set_title(shortened(name, 34), fontsize=10, parse_math=False)
        panel.set_ylabel("molecules" if at % columns == 0 else "")
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def _histogram(panel, found: MoleculeExamination, at: int) -> None:
    places = found.molecules.positions
    parts = {part: [places[number] for number in numbers] for part, numbers in found.parts.items()}
    parts = parts or {"all": list(places)}
    columns = {part: found.targets.values[rows, at] for part, rows in parts.items()}
    columns = {part: column[~np.isnan(column)] for part, column in columns.items()}
    everything = np.concatenate(list(columns.values()))
    if not len(everything):
        return
    look = {"stacked": True, "color": [COLOURS.get(part, BLUE) for part in columns], "label": list(columns)}
    if found.roles.kind == "numbers":
        panel.hist(list(columns.values()), bins=np.histogram_bin_edges(everything, BARS), **look)
        return
    labels = found.targets.words or ["0", "1"]
    panel.hist(list(columns.values()), bins=np.arange(len(labels) + 1) - 0.5, rwidth=0.8, **look)
    shown = range(len(labels)) if len(labels) <= 12 else []
    panel.set_xticks(list(shown), [shortened(labels[number], 12) for number in shown], parse_math=False)
