"""Tasks of one's own, each whole: data, training, evaluation and a table. See docs/recipes.md."""
