"""Whether a host may be called: its circuit, its budget, one limiter before both."""
