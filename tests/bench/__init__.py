"""What the server can do on one core, measured against a loopback upstream: `python -m tests.bench`."""
