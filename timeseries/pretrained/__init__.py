"""Published weights of the time series models: layouts of files, their sizes, where they are and under which terms."""

from .layouts import OFFICIAL_INFORMER as OFFICIAL_INFORMER
from .layouts import OFFICIAL_NILMFORMER as OFFICIAL_NILMFORMER
from .layouts import OFFICIAL_PATCHTST as OFFICIAL_PATCHTST
from .layouts import THUML_ITRANSFORMER as THUML_ITRANSFORMER
from .tirex import TIREX as TIREX
from .tirex import TIREX2 as TIREX2
from .tirex import TIREX2_SOURCES as TIREX2_SOURCES
from .tirex import TIREX_SOURCES as TIREX_SOURCES
from .tirex import tirex2_arguments as tirex2_arguments
from .tirex import tirex_arguments as tirex_arguments
