"""The server of `omnivinci serve`: what the handler of `publishing.handler` answers, over HTTP."""
