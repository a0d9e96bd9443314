"""Alerts: what is wrong, whom it concerns, when people are told of it, and how they are reached."""
