"""The tamper-evident log: records, their Merkle tree, signed checkpoints, proofs, and verifying.

``log.LogWriter`` writes it, ``verify.verify`` checks it, ``proofs`` prove single records to
strangers, ``story`` tells what happened to a task.
"""
