"""Forms with files, as clients of `/v1/audio/transcriptions` send them (`multipart/form-data`)."""

from email.parser import BytesParser
from email.policy import HTTP

from ..endpoint import RequestError


def read_form(content: bytes, content_type: str) -> dict[str, list[str | bytes]]:
    """
    The fields of a form by their names, each with all of its values: texts, and files as bytes.

    Args:
        content (`bytes`): The body of the request.
        content_type (`str`): Its header of this name, which has the boundary.

    Raises:
        RequestError: it is no such form.
    """
    if not content_type.lower().startswith("multipart/form-data"):
        raise RequestError(400, f"The body is a form, `multipart/form-data`, got {content_type!r:.80}.")
    head = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode("latin-1", "replace")
    message = BytesParser(policy=HTTP).parsebytes(head + content)
    if not message.is_multipart():
        raise RequestError(400, "The form has no parts between the boundaries that its header names.")
    fields: dict[str, list[str | bytes]] = {}
    for part in message.iter_parts():
        disposition = part["content-disposition"]
        name = None if disposition is None else disposition.params.get("name")
        if name is None:
            raise RequestError(400, "A part of the form has no name.")
        value = part.get_payload(decode=True) or b""
        if "filename" not in disposition.params:
            try:
                value = value.decode()
            except UnicodeDecodeError as error:
                raise RequestError(400, f"The field {name!r:.40} of the form is no text in UTF-8.") from error
        fields.setdefault(name.removesuffix("[]"), []).append(value)
    return fields
