"""``python -m metaopt`` is the command line."""

import sys

from metaopt.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
