"""What a repository of the Hub carries beside the model: its card, its code and the handler of its endpoint."""
