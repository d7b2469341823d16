"""`python -m netfutures`: the same as the command `netfutures`."""

import sys

from netfutures.cli import main

if __name__ == "__main__":
    sys.exit(main())
