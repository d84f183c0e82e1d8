"""Scores: what attention makes of its logits in place of the softmax; what one must do is said in contract.py."""

from .contract import Score as Score
from .contract import attend_by_score as attend_by_score
from .relu import ReluScore as ReluScore
from .sigmoid import SigmoidScore as SigmoidScore
