"""What cloud and device say to each other: versioned wire formats, and nothing that acts.

Every document is a frozen :mod:`msgspec` struct with ``version`` and ``requires``. A receiver
ignores fields it doesn't know and refuses a document that requires a feature it doesn't know,
naming it. Modules: ``documents`` (the shared rules), ``digest``, ``names``, ``bundle``, ``layout``
and ``files`` (model versions), ``release``, ``pointer``, ``report``, ``event`` and ``segment``
(telemetry), ``sketch`` and ``kll``, ``target`` (hardware and variant choice), ``inference`` (Open
Inference Protocol v2 tensors).
"""
