"""Which classes torch makes of a file: its own, and none that a library has declared safe for the whole process.

Importing torch_geometric declares twenty of its own safe, torch.distributed others. What a file may hold must not
depend on what happens to be imported.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def safe_classes(classes: Sequence[type] = ()) -> Iterator[None]:
    """While it lasts, `torch.load(weights_only=True)` makes tensors, plain data and `classes`; nothing else.

    What others declare safe meanwhile, in another thread, stays declared.
    """
    with _ONE_AT_A_TIME:
        before = get_safe_globals()
        clear_safe_globals()
        add_safe_globals(list(classes))
        try:
            yield
        finally:
            meanwhile = set(get_safe_globals()) - set(classes)
            clear_safe_globals()
            add_safe_globals([*before, *meanwhile])
