"""How Sphinx builds the documentation: `make docs`."""

from importlib.metadata import version as version_of

project = "EdgeFleet"
author = "The EdgeFleet authors"
copyright = author  # noqa: A001 (Sphinx's name for it)
release = version_of("edgefleet")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
