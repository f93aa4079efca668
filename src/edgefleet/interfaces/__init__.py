"""What a backend is: one ABC a role, and ``Can…`` mixins for what only some can do.

``service`` (the shared error boundary), ``state``, ``blobs``, ``registry``, ``document_registry``,
``trainer`` and ``training_run``, ``deployer``, ``telemetry``.
"""
