"""Rows and values as the API shows them: pure functions, one module per resource."""
