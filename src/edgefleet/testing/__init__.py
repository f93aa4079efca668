"""For authors of plugins: the conformance kit and the mock seam.

``kit`` holds one pytest class a role; ``mock`` what a mock cloud is and how to start one;
``waiting`` waits in tests for what devices bring about.
"""
