"""Points in time, as people and programs write them. A text is read whole or refused, and nothing is guessed."""

from etl.times.moment import Moment

__all__ = ["Moment"]
