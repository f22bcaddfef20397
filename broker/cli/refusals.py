"""What a command itself refuses, before or after it has asked the broker."""

from __future__ import annotations


class UsageError(Exception):
    """The command line contradicts itself, or lacks something; nothing was sent."""

    def __init__(self, detail: str, *, hint: str = "") -> None:
        """``hint`` says what to type instead."""
        super().__init__(detail)
        self.detail = detail
        self.hint = hint


class CommandFailed(Exception):
    """The command did what it could, and that isn't what was asked for."""

    def __init__(self, detail: str, *, code: str, hint: str = "") -> None:
        """``code`` is for programs, as an error of the broker's has one."""
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.hint = hint
