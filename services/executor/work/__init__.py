"""A worker's parts: `taking` records off the queue, `lanes` to run them, a `reporter` to the manager."""
