"""Which version of the protocol between processes and tables this release has.

It rises when processes of two releases would undo each other's work side by side: what is new waits until all that are
alive have the same.
"""

PROTOCOL = 2
