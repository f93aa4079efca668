"""The service that devices pull from: HTTPS on an ASGI stack, one route table, one gateway object.

A request goes through `wire` (sockets, deadlines), `door` (who, how often, what is written down)
and one of the modules that answer. `running` puts it together.
"""
