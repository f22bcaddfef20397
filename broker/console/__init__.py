"""The console: pages for people, over the same methods as the API."""
