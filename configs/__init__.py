"""Hydra configuration groups that ship with quintet; `--config-dir FOLDER` puts the user's own before them."""
