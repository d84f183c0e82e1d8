"""Pictures that several domains draw."""

from .charts import confusion_matrix as confusion_matrix
from .charts import learning_curves as learning_curves
