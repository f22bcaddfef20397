"""The whole broker on one machine: embedded engines, a dev issuer, a dev configuration."""
