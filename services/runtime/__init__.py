"""I/O that two or more services share. No service imports another; they all may import this."""
