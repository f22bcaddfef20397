"""Where credentials come from: the Protocol every backend follows, and the backends.

The names here are public: packages with backends of their own are written against them.
"""

from broker.backends.plugins import BackendContext
from broker.backends.protocol import Backend, HandleStore, Minted, Prepared

__all__ = ["Backend", "BackendContext", "HandleStore", "Minted", "Prepared"]
