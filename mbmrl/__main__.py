"""``python -m mbmrl``: the same as ``mbmrl``."""

import sys

from mbmrl.cli import main

if __name__ == "__main__":
    sys.exit(main())
