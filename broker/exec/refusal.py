"""What can't be handed over as it was asked for."""

from __future__ import annotations


class Unfit(Exception):
    """What was asked for can't be made of the credential, or of the command line."""
