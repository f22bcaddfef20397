"""Chaos: three brokers and their servers are killed, stopped, cut off and misled under load.

``python -m tests.chaos``; see docs/operations/chaos.md. Nothing here is part of the package.

- `plan.py`: a round's faults, all of them from its seed.
- `servers.py`, `raft.py`, `replica.py`, `link.py`: what is broken.
- `faults.py`: how each fault is done, and undone.
- `load.py`, `model.py`: the client under whose load it happens, and what it knows must be dead.
- `watch.py`: what PostgreSQL lets in, looked at ten times a second.
- `look.py`: what there is at PostgreSQL, at OpenBao, and in the ledger.
- `check.py`: the verdict; no I/O.
- `round.py`, `__main__.py`: one round, and many.
"""
