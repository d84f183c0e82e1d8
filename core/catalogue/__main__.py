"""Writes the tables anew from what is registered."""

from pathlib import Path

from quintet.core.catalogue import MIXERS, MODELS, MixerRow, ModelRow, as_text, mixer_rows, model_rows
from quintet.core.weights.registry import list_mixers, list_models

if __name__ == "__main__":
    rows = model_rows(list_models())
    Path(__file__).with_name(MODELS).write_text(as_text(rows, ModelRow._fields), encoding="utf-8")
    mixers = mixer_rows(list_mixers())
    Path(__file__).with_name(MIXERS).write_text(as_text(mixers, MixerRow._fields), encoding="utf-8")
