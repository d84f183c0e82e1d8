"""What the data modules of all domains share."""

from .module import Augmented as Augmented
from .module import DataModule as DataModule
from .module import Draw as Draw
from .module import Fault as Fault
from .module import SeededSampler as SeededSampler
