"""The device runtime as one file that a device installs without a package index.

`builder` makes it, `wheelhouse` chooses and checks wheels, `packing` packs them, `script` gives the
shell script that brings it to a plain Linux device, `unit` the service that runs it there.
"""
