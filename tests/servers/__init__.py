"""Servers that credentials are for, real ones: Debian's packages, and another Valkey."""
