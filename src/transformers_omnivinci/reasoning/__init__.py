"""
Context unrolling: what is seen, what is heard and both in their order are written down before a question is answered.

- `contexts`: the parts, what asks for them, and the text in which they stand before a question; without torch.
"""
