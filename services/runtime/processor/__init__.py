"""The one loop: inputs and due timers in, state changes and outgoing records out, each batch committed once.

`types` says what goes in and out, `handler` what a service implements, `store` and `log` are the ports with
their real and in-memory bodies, `loop` is the engine.
"""
