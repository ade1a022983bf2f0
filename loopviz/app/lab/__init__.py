"""The Lab page: any measurement of :mod:`loopviz.lab`, its table and plot as they come, its files."""
