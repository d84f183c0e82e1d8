"""Adapting trained networks: few weights that learn in place of many."""

from .lora import LowRank as LowRank
