"""The signed log of every event: written once, proved by anybody, told to others."""
