"""What keeps a network from learning its data by heart."""

from .dropout import Dropout as Dropout
