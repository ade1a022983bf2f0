"""``python -m loopviz``: see :mod:`loopviz.cli`."""

import sys

from loopviz.cli import main

if __name__ == "__main__":
    sys.exit(main())
