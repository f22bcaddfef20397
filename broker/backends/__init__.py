"""Where credentials come from: the Protocol every backend follows, and the backends."""
