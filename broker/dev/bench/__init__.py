"""What the broker costs beside what it stands on: ``make bench``; docs/bench/README.md says how."""
