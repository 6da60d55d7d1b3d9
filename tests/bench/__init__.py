"""The server's performance on one core, measured against a loopback upstream: `python -m tests.bench`."""
