"""
Context unrolling: what is seen, what is heard and both in their order are written down before a question is answered.

- `contexts`: the contexts, what asks for them, and options; without torch.
- `views`: media with picture and sound, or with one of them hidden, encoded once.
- `unrolling`: the contexts and the answer.
"""
