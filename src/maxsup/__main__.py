"""`python -m maxsup` is the `maxsup` command."""

import sys

from maxsup.cli import main

if __name__ == "__main__":
    sys.exit(main())
