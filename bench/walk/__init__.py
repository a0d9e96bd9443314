"""The way of a record, counted: `make walk`, or `make walk WALK="--against COMMIT"` for the ratios to another version."""
