"""The HTTP side: thin views over `db` and `etl`."""
