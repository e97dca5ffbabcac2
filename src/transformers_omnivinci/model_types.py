"""How a `config.json` says that it is of OmniVinci."""

MODEL_TYPE = "omnivinci"
PUBLISHED_MODEL_TYPE = "vila"
