"""Some queries look at some keys."""

from .prob_sparse import ProbSparseAttention as ProbSparseAttention
