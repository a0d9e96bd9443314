"""Everything that speaks SQL: the tables (`models`), connections (`session`) and one module of queries per subject.

A query function takes an open connection first, answers one question, and never commits.
"""
