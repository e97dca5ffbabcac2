"""The Hub's rules for the metadata of a model card, as its documentation gives them (`modelcard.md` of hub-docs,
the pages on licences and on widgets, `pipelines.ts` of huggingface.js), for `/api/validate-yaml` of `hub_server.py`.

Messages are the Hub's own where they are known. What the Hub looks up in its database (whether a base model or a
dataset exists) is not checked."""

import re

import yaml

LICENSES = """apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
    bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0
    cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0
    cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl
    gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr
    mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr
    deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
    grok2-community gemma unknown other""".split()  # noqa: SIM905
PIPELINE_TAGS = """any-to-any audio-classification audio-text-to-text audio-to-audio automatic-speech-recognition
    depth-estimation document-question-answering feature-extraction fill-mask graph-ml image-classification
    image-feature-extraction image-segmentation image-text-to-image image-text-to-text image-text-to-video image-to-3d
    image-to-image image-to-text image-to-video keypoint-detection mask-generation multiple-choice object-detection
    question-answering reinforcement-learning robotics sentence-similarity summarization table-question-answering
    table-to-text tabular-classification tabular-regression tabular-to-text text-classification text-generation
    text-ranking text-retrieval text-to-3d text-to-audio text-to-image text-to-speech text-to-video
    time-series-forecasting token-classification translation unconditional-image-generation video-classification
    video-text-to-text video-to-video visual-document-retrieval visual-question-answering voice-activity-detection
    zero-shot-classification zero-shot-image-classification zero-shot-object-detection other""".split()  # noqa: SIM905
RELATIONS = ["adapter", "merge", "quantized", "finetune"]
WIDGET_INPUTS = {"text", "src", "messages", "context", "table", "structured_data", "source_sentence", "prompt"}
_FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_REPO_ID = re.compile(r"(?:[\w-][\w.-]*/)?[\w-][\w.-]*")


def front_matter(content: str):
    """The YAML block at the top of a card as Python values, `None` if there is none.

    Raises:
        yaml.YAMLError: the block is not YAML."""
    block = _FRONT_MATTER.match(content)
    return yaml.safe_load(block[1]) if block else None


def validate(content: str) -> dict:
    """What the Hub answers to a model card: `{"errors": [{"message": ...}], "warnings": [{"message": ...}]}`."""
    check = _Check()
    try:
        metadata = front_matter(content)
    except yaml.YAMLError as error:
        check.errors.append(f"Invalid YAML: {error}")
        metadata = {}
    if metadata is None:
        check.warnings.append("empty or missing yaml metadata in repo card")
    elif not isinstance(metadata, dict):
        check.errors.append('"metadata" must be of type object')
    else:
        check.card(metadata)
    return {name: [{"message": message} for message in getattr(check, name)] for name in ("errors", "warnings")}


class _Check:
    def __init__(self):
        self.errors, self.warnings = [], []

    def holds(self, condition, message) -> bool:
        if not condition:
            self.errors.append(message)
        return bool(condition)

    def one_of(self, name, value, allowed):
        self.holds(value in allowed, f'"{name}" must be one of [{", ".join(allowed)}]')

    def strings(self, name, value, single=True):
        """(name, string) of a list of strings or, where the Hub takes one, of a single string."""
        if value is None or (single and isinstance(value, str)):
            return [] if value is None else [(name, value)]
        if not self.holds(isinstance(value, list), f'"{name}" must be an array'):
            return []
        named = [(f"{name}[{index}]", item) for index, item in enumerate(value)]
        return [(key, item) for key, item in named if self.holds(isinstance(item, str), f'"{key}" must be a string')]

    def objects(self, name, value):
        if not self.holds(isinstance(value, list), f'"{name}" must be an array'):
            return []
        named = [(f"{name}[{index}]", item) for index, item in enumerate(value)]
        return [
            (key, item) for key, item in named if self.holds(isinstance(item, dict), f'"{key}" must be of type object')
        ]

    def text(self, name, value, required=True):
        if value is not None or required:
            problem = "is required" if value is None else "must be a string"
            return self.holds(isinstance(value, str) and value, f'"{name}" {problem}')

    def card(self, card):
        for name, value in self.strings("license", card.get("license")):
            self.one_of(name, value, LICENSES)
            if value == "other":
                self.other_license(card)
        for name, value in self.strings("language", card.get("language")):
            self.holds(
                re.fullmatch(r"[a-z]{2,3}|code|multilingual", value),
                f'"{name}" with value "{value}" is not valid. It must be an ISO 639-1, 639-2 or 639-3 code (two/three '
                'letters), or a special value like "code", "multilingual".',
            )
        for key in ("base_model", "datasets", "new_version"):
            kind = "dataset" if key == "datasets" else "model"
            for name, value in self.strings(key, card.get(key)):
                self.holds(
                    _REPO_ID.fullmatch(value) and ".." not in value and "--" not in value,
                    f'"{name}" with value "{value}" is not valid. Use a {kind} id from https://hf.co/{kind}s.',
                )
        if "base_model_relation" in card:
            self.one_of("base_model_relation", card["base_model_relation"], RELATIONS)
        self.text("library_name", card.get("library_name"), required=False)
        self.strings("tags", card.get("tags"), single=False)
        self.strings("metrics", card.get("metrics"), single=False)
        self.strings("language_bcp47", card.get("language_bcp47"), single=False)
        tag = card.get("pipeline_tag")
        if tag is not None and self.text("pipeline_tag", tag) and tag not in PIPELINE_TAGS:
            self.warnings.append(f'The pipeline tag "{tag}" is not in the official list: {", ".join(PIPELINE_TAGS)}')
        if "widget" in card:
            self.widget(card["widget"])
        if "model-index" in card:
            self.model_index(card["model-index"])

    def other_license(self, card):
        name, link = str(card.get("license_name")), str(card.get("license_link"))
        self.holds(
            "license_name" in card and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name),
            '"license_name" is required where "license" is "other", in lower case, like `my-license-1.0`',
        )
        self.holds(
            re.fullmatch(r"LICENSE(\.md)?|https?://\S+", link),
            '"license_link" is required where "license" is "other": "LICENSE", "LICENSE.md" or a URL',
        )

    def widget(self, examples):
        for name, example in self.objects("widget", examples):
            self.holds(WIDGET_INPUTS & example.keys(), f'"{name}" must have one of {sorted(WIDGET_INPUTS)}')
            for key in ("text", "src", "example_title", "group"):
                self.text(f"{name}.{key}", example.get(key), required=False)
            for key, message in self.objects(f"{name}.messages", example.get("messages", [])):
                self.one_of(f"{key}.role", message.get("role"), ["system", "user", "assistant"])
                content = message.get("content")
                self.holds(content and isinstance(content, str | list), f'"{key}.content" is required')
            output = example.get("output", {})
            self.holds(isinstance(output, dict | list), f'"{name}.output" must be of type object')

    def model_index(self, models):
        for model_name, model in self.objects("model-index", models):
            self.text(f"{model_name}.name", model.get("name"))
            for name, result in self.objects(f"{model_name}.results", model.get("results")):
                for part, keys in (("task", ["type"]), ("dataset", ["type", "name"])):
                    value = result.get(part)
                    if self.holds(isinstance(value, dict), f'"{name}.{part}" is required'):
                        for key in keys:
                            self.text(f"{name}.{part}.{key}", value.get(key))
                        for key in {"name", "config", "split", "revision"} & value.keys() - set(keys):
                            self.text(f"{name}.{part}.{key}", value[key], required=False)
                for key, metric in self.objects(f"{name}.metrics", result.get("metrics")):
                    self.text(f"{key}.type", metric.get("type"))
                    self.text(f"{key}.name", metric.get("name"), required=False)
                    self.holds(metric.get("value") is not None, f'"{key}.value" is required')
                source = result.get("source")
                if source is not None and self.holds(isinstance(source, dict), f'"{name}.source" must be an object'):
                    self.text(f"{name}.source.url", source.get("url"))
