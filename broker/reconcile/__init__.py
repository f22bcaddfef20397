"""Reconciling: what the ledger says is alive, against what backends and targets have."""
