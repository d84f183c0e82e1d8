"""Writes the tables anew from what is registered."""

from pathlib import Path

from quintet.core.catalogue import MODELS, ModelRow, as_text, model_rows
from quintet.core.weights.registry import list_models

if __name__ == "__main__":
    rows = model_rows(list_models())
    Path(__file__).with_name(MODELS).write_text(as_text(rows, ModelRow._fields), encoding="utf-8")
