"""One module of queries per subject."""
