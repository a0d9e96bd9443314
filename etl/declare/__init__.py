"""What is declared in the sources file: types, checks, and the schema for editors."""
