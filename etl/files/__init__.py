"""Files of rows: `find` names those that may be read, `archive` unpacks, `lines` and `rows` read, `dialect` guesses."""
