"""RSS and Atom: `parse` reads a feed, `child` does so in a process that may be killed, `parser` is the way to it."""
