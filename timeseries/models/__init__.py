"""Forecasting models and the baselines beside them; importing this registers the models."""

from .baselines import RidgeForecaster as RidgeForecaster
from .baselines import seasonal_naive as seasonal_naive
from .itransformer import ITransformer as ITransformer
from .patchtst import PatchTST as PatchTST
