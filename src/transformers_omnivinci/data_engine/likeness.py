"""How much two texts have in common, by triples of words."""


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()


def triples_of(text: str) -> set[tuple[str, ...]]:
    """Three words after another, each once; of a text of less than three, all of it."""
    words = words_of(text)
    return {tuple(words[place : place + 3]) for place in range(max(1, len(words) - 2))}


def likeness(one: set, other: set) -> float:
    """The share of triples of both that both have, from 0 to 1."""
    return len(one & other) / len(one | other)
