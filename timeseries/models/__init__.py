"""Forecasting models and the baselines beside them; importing this registers the models."""

from .baselines import RidgeForecaster as RidgeForecaster
from .baselines import seasonal_naive as seasonal_naive
from .inception_time import InceptionTime as InceptionTime
from .informer import Informer as Informer
from .interpolation import last_value as last_value
from .interpolation import linear_interpolation as linear_interpolation
from .itransformer import ITransformer as ITransformer
from .nearest_neighbor import NearestNeighbor as NearestNeighbor
from .nilmformer import NILMFormer as NILMFormer
from .patch_classifier import PatchClassifier as PatchClassifier
from .patch_encoder import PatchEncoder as PatchEncoder
from .patchtst import PatchTST as PatchTST
from .tirex import TiRex as TiRex
from .tirex2 import TiRex2 as TiRex2
