"""What a fleet's events tell: drift, losses and cost.

Everything here reads events through `edgefleet.interfaces.telemetry`, whichever provider they came
from, and gives values that show themselves: as text, as a table in a notebook, as JSON and as a
picture. Heavy libraries (numpy, datasketches, matplotlib) are imported when a function needs them.

Modules: ``gathering`` (sketches that merge as they come), ``references`` (what a bundle expects),
``windows`` (what is merged with what), ``drift``, ``drift_rows``, ``drift_plot``, ``drift_report``.
"""
