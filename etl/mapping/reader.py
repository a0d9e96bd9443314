"""Which version of our reader takes times, numbers, texts, dialects and feeds for what they are.

It rises when a value that was read before is read otherwise. The changelog says what.
"""

READER = 2
