"""What is under deploy/: alerts, the image, and what runs it."""
