"""The commands of docs/serving.md have only arguments that vLLM knows, with values that it takes."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
SECTION = PAGE[PAGE.index("\n## With vLLM\n") :]
LINES = [
    line
    for block in re.findall(r"^```console\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
STARTS = ("vllm serve ", "python -m vllm.entrypoints.openai.api_server ")
OTHERS = {"--tiny", "--lora"}  # of a benchmark, and of `omnivinci train`
COMMANDS = [line.removeprefix(start) for line in LINES for start in STARTS if line.startswith(start)]


@pytest.fixture(scope="module")
def parser():
    return make_arg_parser(FlexibleArgumentParser())


def parse(parser, arguments):
    parsed = parser.parse_args(arguments)
    validate_parsed_serve_args(parsed)
    return parsed


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(parser, command):
    parsed = parse(parser, shlex.split(command, comments=True))
    assert parsed.model_tag or parsed.model


def test_no_command_is_overlooked():
    assert len(COMMANDS) >= 9
    assert sum("vllm" in line and not line.startswith("pip") for line in LINES) == len(COMMANDS)


def test_the_deployment_starts_a_server_that_is_understood(parser):
    [deployment] = re.findall(r"^```yaml\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    [container] = yaml.safe_load(deployment)["spec"]["template"]["spec"]["containers"]
    parsed = parse(parser, container["args"])
    assert parsed.model_tag == "nvidia/omnivinci" and parsed.limit_mm_per_prompt["video"]
    port = container["ports"][0]["containerPort"]
    assert port == parsed.port == container["readinessProbe"]["httpGet"]["port"]


def test_options_in_the_text_exist(parser):
    text = re.sub(r"^```.*?^```$", "", SECTION, flags=re.DOTALL | re.MULTILINE)
    named = {name for code in re.findall(r"`([^`]+)`", text) for name in re.findall(r"(?<![\w-])--[a-z-]+", code)}
    known = set(re.findall(r"--[a-z-]+", parser.format_help()))
    assert len(named & known) > 10
    assert named <= known | OTHERS


def test_a_wrong_argument_would_be_noticed(parser, capsys):
    with pytest.raises(SystemExit):
        parse(parser, ["nvidia/omnivinci", "--mm-processor-cache-kind", "shm"])
