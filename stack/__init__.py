"""The local stack: embedded servers, the process supervisor, the sample sources, and the `make` commands.

Not part of the service: with real servers and another supervisor none of this is needed.
"""
