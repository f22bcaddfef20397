"""A just-in-time credential broker for AI agents: every credential belongs to one task."""

__version__ = "0.1.0"
