"""The commands: ``loopviz run``, ``export``, ``eval``, ``sweep``, ``train``, ``evaluate`` (:mod:`loopviz.cli.main`)."""
