"""`python -m reprogram` is the command `reprogram`."""

import sys

from reprogram.cli import main

if __name__ == "__main__":
    sys.exit(main())
