"""`make small`: a model that transcribes English, made of real parts on two cores. See docs/small.md."""
