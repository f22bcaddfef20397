"""Who is calling. Authentication only: nothing in here says what anyone may do."""
