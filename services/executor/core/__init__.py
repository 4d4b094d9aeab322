"""The execution as a fold, and every rule about it. Pure: `now` is an argument."""
