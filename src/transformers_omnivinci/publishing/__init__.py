"""What a repository of the Hub carries beside the model."""
