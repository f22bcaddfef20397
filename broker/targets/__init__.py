"""Targets: the systems that credentials are for, asked themselves which accounts they have."""
