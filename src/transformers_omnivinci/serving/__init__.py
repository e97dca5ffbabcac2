"""The HTTP server of `omnivinci serve`; `endpoint` reads and answers the requests."""
