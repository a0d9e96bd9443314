"""Who may call, and what: roles and API keys."""
