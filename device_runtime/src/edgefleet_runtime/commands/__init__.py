"""The commands of ``edgefleet-runtime``, one a module: ``add`` declares it, ``_run`` does it."""
