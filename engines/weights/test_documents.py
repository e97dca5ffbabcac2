"""The snippets of the documents that need quantizers print what stands below them."""

import re
from pathlib import Path

import pytest

from compat.wheel import snippets

DOCS = Path(__file__).parents[2] / "docs"
SECTIONS = [("quantization.md", "While loading"), ("training.md", "QLoRA")]


@pytest.mark.parametrize(("page", "heading"), SECTIONS)
def test_snippets_print_what_stands_below_them(page, heading, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text()
    (section,) = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    found, namespace = snippets(section.replace("```py\n", "```python\n")), {}
    assert found
    for snippet, printed in found:
        exec(compile(snippet, page, "exec"), namespace)
        assert capsys.readouterr().out == printed, snippet
