"""
The page of `omnivinci web`. Only `page` and `launch` import Gradio.

- `overview`: what is shown of a clip: pictures, sound and groups.
- `visits`: a session for each page that is open, and one model for all of them.
- `stage`, `transcript`: a clip and a conversation as HTML.
- `examples`: clips of the synthetic world.
- `page`, `launch`: the page, and its server.
"""
