"""The molecules that come with RDKit: 1,017 ligands of one series with measured activities.

Document CHEMBL2321810 of ChEMBL (https://www.ebi.ac.uk/chembl), CC BY-SA 3.0: whoever shows them says so.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from rdkit import RDConfig

from ....core.errors import QuintetError
from .files import MoleculeTable, read_table

NAME = "CHEMBL2321810"
FOLDER = Path(RDConfig.RDContribDir) / "FreeWilson" / "data"


def ligands() -> MoleculeTable:
    """SMILES, numbers and activities (the negative decadic logarithm of a concentration in mol/L)."""
    if not (FOLDER / f"{NAME}.smi").is_file():
        raise QuintetError(f"this RDKit came without {NAME}, the molecules of the example; give data.path=FILE")
    molecules = read_table(FOLDER / f"{NAME}.smi").frame
    measured = read_table(FOLDER / f"{NAME}_act.csv").frame
    activity = dict(zip(measured["Name"], measured["Act"], strict=True))
    frame = molecules.assign(activity=pd.array([activity[name] for name in molecules["name"]], "str"))
    return MoleculeTable(f"{NAME} (ChEMBL, CC BY-SA 3.0)", frame, np.arange(1, len(frame) + 1))
