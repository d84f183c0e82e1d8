"""Feature maps f of linear attention, whose weights are f(q) · f(k); what one must do is said in contract.py."""

from .contract import FeatureMap as FeatureMap
from .contract import Tokens as Tokens
from .cosine import CosineReweighting as CosineReweighting
from .elementwise import EluPlusOne as EluPlusOne
from .elementwise import elu_plus_one as elu_plus_one
from .hedgehog import HedgehogFeatures as HedgehogFeatures
from .positive_random import PositiveRandomFeatures as PositiveRandomFeatures
from .taylor import TaylorFeatures as TaylorFeatures
