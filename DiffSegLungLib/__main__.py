"""``python -m DiffSegLungLib`` is the command line."""

import sys

from DiffSegLungLib.cli import main

if __name__ == "__main__":
    sys.exit(main())
