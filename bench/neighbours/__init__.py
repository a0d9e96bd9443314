"""What sources cost each other: healthy ones run beside dead, slow, hostile and deadly ones, and are timed.

`world` plays the servers, by `answers`; `sources` declares them; `launcher` is a worker in which three sources do what
no limit of the service catches; `watch` looks on, and `figures` says what came of it.
"""
