"""`python -m quintet` is the command `quintet`."""

import sys

from .cli import main

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, of which nothing may stand in for an installed package
    sys.exit(main())
