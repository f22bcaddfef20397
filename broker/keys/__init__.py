"""The broker's own signing keys: files only the broker can read, rotated without a restart.

Every key is published and verifies; one signs. A new key is published first and signs later, once
nobody can hold an older copy of the key set. The key before it stays until nothing it signed lives.
When each key begins to sign stands in its file, so all replicas on one folder agree without asking
each other.

``key.py`` is one key, ``folder.py`` the files, ``ring.py`` what signs and verifies, and
``rotation.py`` what changes them.
"""

from broker.keys.key import Algorithm, SigningKey
from broker.keys.ring import KeyRing
from broker.keys.rotation import KeyRotation, KeyState, KeyStatus, Rotated, RotationTimes

__all__ = [
    "Algorithm",
    "KeyRing",
    "KeyRotation",
    "KeyState",
    "KeyStatus",
    "Rotated",
    "RotationTimes",
    "SigningKey",
]
