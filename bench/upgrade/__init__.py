"""The newest migration on a large database that is in use: what is lost, and who waits for how long."""
