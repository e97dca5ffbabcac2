"""
The code of a repository that works without this package.

For `trust_remote_code=True`, transformers loads a class from a file at the root of its repository, and fetches the
files that this one imports relatively. The files are this package's own modules; only their imports are changed.

For Inference Endpoints, the toolkit puts the repository first on the path and imports `handler.py`. The modules of the
handler lie in a folder of their own, so that none of them hides an installed package of the same name.
"""

import ast
import configparser
import json
import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from transformers.dynamic_module_utils import get_imports

from ..checkpoint_formats import MODEL_TYPE, CheckpointFormat, read_json, registered_formats
from ..remote_code import PACKAGE
from ..version import __version__

ROOT = Path(__file__).parents[1]
HANDLER = "handler.py"
ENDPOINT = "omnivinci_endpoint"
"""The folder of the handler's modules in a repository; in this package they are in `endpoint`."""
REQUIREMENTS = "requirements.txt"
DISTRIBUTION = PACKAGE.replace("_", "-")

MODULES = {
    "OmniVinciConfig": "configuration_omnivinci",
    "OmniVinciForConditionalGeneration": "modeling.modeling_omnivinci",
    "OmniVinciProcessor": "processing.processing_omnivinci",
    "OmniVinciImageProcessor": "processing.image_processing_omnivinci",
    "OmniVinciVideoProcessor": "processing.video_processing_omnivinci",
    "VideoTextToTextPipeline": "pipelines.video_text_to_text",
}
"""The classes that the configs of a repository name, and their modules."""

MODEL_AUTO_CLASSES = ("AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM")

HANDOVER = """
# Where the package is installed, its own class wins over this copy.
try:
    from {package} import {name}
except ImportError:
    pass
"""

HANDLER_CODE = '''"""The handler of Inference Endpoints."""

from contextlib import suppress

# Where the package is installed, its classes are used rather than the code of the repository.
with suppress(ImportError):
    import {package}  # noqa: F401

from {endpoint} import Downloader, EndpointHandler, Limits, RequestError

__all__ = ["Downloader", "EndpointHandler", "Limits", "RequestError"]
'''

FORMAT = """
register_format(CheckpointFormat({model_type!r}, f"{{__package__}}.{loader}", {config_class!r}, {processor_class!r}))
"""

NAMED_ALONE = """
# Never run. Transformers saves along with a class what it finds imported, and until 5.9 copies from a folder no more
# than the file of a class imports by itself.
if False:
"""


def write_code(folder: str | Path) -> list[Path]:
    """
    Adds to a checkpoint what transformers needs to load it where this package is not installed.

    Args:
        folder (`str` or `Path`):
            What `save_pretrained` of a model and of its processor wrote. It gets the package's modules as flat files,
            the handler of Inference Endpoints and `requirements.txt`; `config.json` and `processor_config.json` get
            the entries `auto_map` and `custom_pipelines`. The same package writes the same bytes every time.

    Returns the files that were written.

    Raises:
        OSError: a config cannot be read or a file cannot be written.
        ValueError: a config is not what this package's classes write.
    """
    folder, configs = Path(folder), {}
    for name, add_code in (("processor_config.json", _name_processor_code), ("config.json", _name_model_code)):
        # As transformers writes it.
        configs[name] = json.dumps(add_code(folder / name), indent=2, sort_keys=True) + "\n"
    files = code_files() | configs  # configs last, so that they never name what is not there
    (folder / ENDPOINT).mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in files]


def code_files() -> dict[str, str]:
    """The contents of the files that [`write_code`] adds, by their names relative to the folder."""
    sources, endpoint = _find_sources(), sorted((ROOT / "endpoint").glob("*.py"))
    files = {f"{_flat(module)}.py": _flatten(module, sources) for module in sources}
    files[HANDLER] = HANDLER_CODE.format(package=PACKAGE, endpoint=ENDPOINT)
    files |= {f"{ENDPOINT}/{path.name}": path.read_text(encoding="utf-8") for path in endpoint}
    files[REQUIREMENTS] = "".join(f"{line}\n" for line in _requirements([*sources.values(), *endpoint]))
    return files


def _name_model_code(path: Path) -> dict:
    """The model's config, with the classes that load it."""
    config = read_json(path)
    if config.get("model_type") != MODEL_TYPE:
        raise ValueError(
            f"{path} has the model_type {config.get('model_type')!r}: only a folder to which a model of the type "
            f"{MODEL_TYPE!r} and its processor were saved can carry their code."
        )
    model, pipeline = _reference("OmniVinciForConditionalGeneration"), _reference("VideoTextToTextPipeline")
    config["auto_map"] = {"AutoConfig": _reference("OmniVinciConfig"), **dict.fromkeys(MODEL_AUTO_CLASSES, model)}
    # The class of `ImageTextToTextPipeline`, or it says that it does not know the model.
    config["custom_pipelines"] = {"video-text-to-text": {"impl": pipeline, "pt": ["AutoModelForImageTextToText"]}}
    return config


def _name_processor_code(path: Path) -> dict:
    """The processor's config, with the classes that load it and its parts."""
    config = read_json(path)
    parts = {"image_processor": "ImageProcessor", "video_processor": "VideoProcessor"}
    missing = [part for part in parts if not isinstance(config.get(part), dict)]
    if missing:
        raise ValueError(
            f"{path} has no {' and no '.join(missing)}: `save_pretrained` of an OmniVinciProcessor writes both."
        )
    config["auto_map"] = {"AutoProcessor": _reference("OmniVinciProcessor")}
    for part, name in parts.items():
        config[part]["auto_map"] = {f"Auto{name}": _reference(f"OmniVinci{name}")}
    return config


def _reference(name: str) -> str:
    """`file.Class`, as `auto_map` names a class."""
    return f"{_flat(MODULES[name])}.{name}"


def _find_sources() -> dict[str, Path]:
    """The files of the modules in `MODULES`, of those of formats, and of all that they import here, by module."""
    sources, waiting = {}, [*MODULES.values(), *_loaders()]
    while waiting:
        module = waiting.pop()
        if module not in sources:
            sources[module] = _path_of(module)
            waiting += [name for _, imported, _ in _relative_imports(module) for name in imported]
    files = [f"{_flat(module)}.py" for module in sources] + [HANDLER]
    clashes = sorted({name for name in files if files.count(name) > 1})
    if clashes:
        raise ValueError(f"Several modules of {PACKAGE} would become the same flat file: {', '.join(clashes)}.")
    return dict(sorted(sources.items()))


def _loaders() -> dict[str, CheckpointFormat]:
    """The formats of checkpoints that this package itself loads, by module."""
    own = f"{PACKAGE}."
    return {one.loader.removeprefix(own): one for one in registered_formats() if one.loader.startswith(own)}


def _relative_imports(module: str) -> list[tuple[ast.ImportFrom, list[str], bool]]:
    """
    The relative imports of a module, those within functions too, from top to bottom: the statement, the modules, and
    whether these themselves are imported (`from . import media`), rather than names of one.
    """
    path, found = _path_of(module), []
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    for node in sorted(nodes, key=lambda node: node.lineno):
        parts = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
        names = [".".join([*parts, alias.name]) for alias in node.names]
        modules = [name for name in names if _path_of(name).is_file()]
        if modules and modules != names or not (modules or parts):
            raise ValueError(f"{path}, line {node.lineno}: a flat file can import modules or names of one, not both.")
        found.append((node, modules or [".".join(parts)], bool(modules)))
    return found


def _path_of(module: str) -> Path:
    """The file of a module, which need not exist."""
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _flat(module: str) -> str:
    """The name of a module's flat file, without `.py`."""
    return module.rpartition(".")[2]


def _flatten(module: str, sources: Iterable[str]) -> str:
    """The code of one of the modules `sources`, importing from the flat files beside it."""
    path = _path_of(module)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for node, modules, imports_modules in reversed(_relative_imports(module)):
        first, indent = node.lineno - 1, " " * node.col_offset
        if imports_modules:
            statements = [f"from . import {', '.join(ast.unparse(alias) for alias in node.names)}"]
            # Transformers fetches only files that it finds imported like this.
            statements += [f"from .{_flat(name)} import __name__ as _" for name in modules]
            lines[first : node.end_lineno] = [f"{indent}{statement}\n" for statement in statements]
        else:
            lines[first] = re.sub(r"from \S+", f"from .{_flat(modules[0])}", lines[first], count=1)
    origin = path.relative_to(ROOT).as_posix()
    header = f"# Written by {DISTRIBUTION} {__version__} from {origin}; changes belong there.\n"
    handovers = [HANDOVER.format(package=PACKAGE, name=name) for name in MODULES if MODULES[name] == module]
    if module == "checkpoint_formats":
        handovers += [FORMAT.format(**vars(known) | {"loader": _flat(path)}) for path, known in _loaders().items()]
    if module in MODULES.values():
        others = [other for other in sources if other != module]
        handovers += [NAMED_ALONE, *(f"    from .{_flat(other)} import __name__ as _\n" for other in others)]
    return "".join([header, *lines, *handovers])


def _requirements(files: Iterable[Path]) -> list[str]:
    """Those of the package's own requirements that its files import, and what chat templates need."""
    distributions = metadata.packages_distributions()
    imported = {name for file in files for package in get_imports(file) for name in distributions.get(package, [])}
    imported = {_normalize(name) for name in imported} | {"jinja2"}
    names = {requirement: _normalize(re.match(r"[\w.-]+", requirement)[0]) for requirement in _own_requirements()}
    return sorted(requirement for requirement, name in names.items() if name in imported)


def _own_requirements() -> list[str]:
    """The package's requirements, without those of extras."""
    try:
        # Those of extras have a marker.
        return [line for line in metadata.requires(DISTRIBUTION) if ";" not in line]
    except metadata.PackageNotFoundError:  # a source tree that is not installed
        parser = configparser.ConfigParser()
        parser.read(ROOT.parents[1] / "setup.cfg", encoding="utf-8")
        return parser["options"]["install_requires"].split()


def _normalize(name: str) -> str:
    """The canonical spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()
