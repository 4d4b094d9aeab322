"""One module per resource; `app` mounts them."""
