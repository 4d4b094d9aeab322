"""What the notifier decides, without I/O: who hears of an event, and when a delivery is tried again."""
