"""What stands outside Millstream: a demonstration of it, and a receiver of its webhooks."""
