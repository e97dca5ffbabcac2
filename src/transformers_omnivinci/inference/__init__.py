"""Plug-ins for engines that run the model, each with what it needs as an extra of its own. Nothing here is imported
with the package."""
