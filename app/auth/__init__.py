"""API keys: bearer secrets with scopes, checked before anything else of a request is read."""
