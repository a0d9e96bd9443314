"""All that speaks Redis: messages out, and what all workers know about hosts."""
