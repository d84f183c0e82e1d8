"""What the data modules of all domains share."""

from .faults import Fault as Fault
from .length_batches import LengthBatches as LengthBatches
from .module import DataModule as DataModule
from .seeded import Augmented as Augmented
from .seeded import Draw as Draw
from .seeded import SeededSampler as SeededSampler
from .sequences import pack_sequences as pack_sequences
from .sequences import pad_sequences as pad_sequences
