"""Stands in for a file that the source distribution lacks."""

config_common_kwargs: dict = {}
"""`ConfigTester` sets these on configurations without sub-configurations; OmniVinci's has some."""
