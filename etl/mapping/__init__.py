"""From a record to an item."""
