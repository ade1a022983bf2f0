"""``python -m loopviz COMMAND`` (see :mod:`loopviz.cli.main`), and ``loopviz``, which opens the app when it is given no command."""

import sys

from loopviz.cli.main import COMMANDS, main

MORE = f"""without a browser: loopviz COMMAND (loopviz COMMAND --help says more)
  {", ".join(COMMANDS)}"""


def loopviz() -> int:
    """The installed command; returns the exit code."""
    first = next(iter(sys.argv[1:]), "")
    if first == "--version" or (first and not first.startswith("-")):
        return main()
    from loopviz.app.command import serve

    serve(program="loopviz", more=MORE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
