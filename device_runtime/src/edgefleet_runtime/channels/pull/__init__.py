"""The pull channel: a device that asks a gateway, a web server or a stick what it should run."""
