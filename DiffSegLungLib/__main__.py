"""``python -m DiffSegLungLib`` is the command line."""

import sys

from DiffSegLungLib.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
