"""Layered configs: command-line options over the run file over default yaml files.

From top to bottom: ``--options a.b=c``, the run file, the default yaml of each data set, the default
yaml of the model. Run file and options are merged first, because they choose the defaults. Each
section is then parsed once, into the `Config` of the class that it names, before anything is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.saved import is_saved_config, read_saved_config, refuse_interpolations
from lavis_lite.common.config.schema import ConfigError, parse, to_plain
from lavis_lite.common.config.shared_settings import disagreements, processors_of, with_shared_settings
from lavis_lite.common.config.user_modules import import_modules, import_saved_modules
from lavis_lite.common.files import first_line
from lavis_lite.common.registry import UnknownNameError, nearest, registry, suggest

if TYPE_CHECKING:
    from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder
    from lavis_lite.models.base_model import BaseModel

DEFAULTS = Path(__file__).parents[2] / "configs"
SECTIONS = ("imports", "model", "datasets", "preprocess", "run")
# Keys of the section `model` that choose its class and defaults; the others are fields of its Config.
MODEL_CHOICE = ("arch", "model_type")


@dataclass
class Layer:
    """One source of settings.

    Args:
        name: what error messages call it.
        settings: what it sets.
    """

    name: str
    settings: DictConfig

    def sets(self, key_path: str) -> bool:
        """Return True where this layer sets `key_path` to a value other than null."""
        try:
            return OmegaConf.select(self.settings, key_path, throw_on_missing=False) is not None
        except OmegaConfBaseException:
            return False


@dataclass
class ResolvedConfig:
    """A checked config, every section as the `Config` of the class that it names."""

    source: str
    """The run file."""
    imports: list[str]
    """The user's own modules."""
    arch: str
    """The registered name of the model."""
    model_type: str | None
    """The type of the model, which chose its default yaml."""
    model: BaseModel.Config
    """The `Config` of the model."""
    datasets: dict[str, BaseDatasetBuilder.Config]
    """Dataset name -> the `Config` of its builder."""
    preprocess: dict[str, Any]
    """The processors that belong to the model."""
    run: RunConfig
    """The `Config` of the task."""

    @property
    def sections(self) -> dict[str, Any]:
        """The whole config as plain values, as it is saved with the run."""
        return {
            "imports": list(self.imports),
            "model": {"arch": self.arch, "model_type": self.model_type, **to_plain(self.model)},
            "datasets": to_plain(self.datasets),
            "preprocess": to_plain(self.preprocess),
            "run": to_plain(self.run),
        }


def load_config(
    cfg_path: str | Path,
    options: Sequence[str] = (),
    imports: Sequence[str] = (),
    trust_imports: bool = False,
) -> ResolvedConfig:
    """Read a run file, merge it with options and defaults, and check everything.

    Args:
        cfg_path: a run file, or the config.yaml of a run folder.
        options: overrides as ``a.b=c``.
        imports: the user's own modules, in addition to those that the file names.
        trust_imports: import the modules that the config.yaml of a run folder names.

    Raises:
        ConfigError: all errors in the config, each with its file, key, value and nearest valid choice.
    """
    path = Path(cfg_path)
    source = str(cfg_path)
    is_saved = is_saved_config(path)
    run_file = Layer(source, _read_saved(path) if is_saved else read_yaml(path))
    overrides = Layer("--options", read_options(options))
    top = OmegaConf.merge(run_file.settings, overrides.settings)
    assert isinstance(top, DictConfig)
    _check_sections(top, source)
    modules = _import_modules(run_file, overrides, top, imports, path.parent, is_saved, trust_imports)

    arch, model_type = (OmegaConf.select(top, f"model.{key}") for key in MODEL_CHOICE)
    if not isinstance(arch, str):
        names = ", ".join(registry.list_models())
        raise ConfigError(f"{source}: model.arch is missing; choose one of {names}.")
    with _unknown_names_at(f"{source}: model.arch"):
        model_class = registry.get_model_class(arch)
    with _unknown_names_at(f"{source}: model.model_type"):
        defaults = model_defaults(model_class, model_type)
    layers = [Layer(f"defaults of the type {model_type!r}", OmegaConf.create(defaults))]
    layers += [*_dataset_layers(top, source), run_file, overrides]
    model, datasets, preprocess, run = _parse_sections(_merge(layers), model_class, layers)
    return ResolvedConfig(source, modules, arch, model_type, model, datasets, preprocess, run)


def model_defaults(model_class: type[BaseModel], model_type: str | None) -> dict[str, Any]:
    """Return the default yaml of a model type as plain values: ``model`` and ``preprocess``.

    Raises:
        UnknownNameError: the model has no such type.
    """
    types = model_class.default_configs
    if model_type is None and not types:
        return {"model": {}, "preprocess": {}}
    if model_type is None or model_type not in types:
        name = registry.models.name_of(model_class)
        raise UnknownNameError(
            f"The model {name!r} has no type {model_type!r}.{suggest(str(model_type), types)}"
        )
    defaults = plain_values(read_yaml(default_path("models", types[model_type])))
    return {"model": defaults.get("model") or {}, "preprocess": defaults.get("preprocess") or {}}


def dataset_defaults(
    builder_class: type[BaseDatasetBuilder], name: str, variant: str = "default"
) -> dict[str, Any]:
    """Return the default yaml of a data set, the part below its name, as plain values.

    Raises:
        UnknownNameError: the data set has no such variant.
    """
    variants = builder_class.default_configs
    if not variants:
        return {}
    if variant not in variants:
        raise UnknownNameError(f"The data set {name!r} has no type {variant!r}.{suggest(variant, variants)}")
    content = plain_values(read_yaml(default_path("datasets", variants[variant])))
    return next(iter((content.get("datasets") or {}).values()), None) or {}


def default_path(kind: str, name: str) -> Path:
    """Return the path of a default yaml: `name` is one of ours, or the path of a user's file."""
    path = Path(name).expanduser()
    return path if path.suffix in (".yaml", ".yml") else DEFAULTS / kind / f"{name}.yaml"


def read_yaml(path: Path) -> DictConfig:
    """Return the content of a yaml file.

    Raises:
        ConfigError: no such file, not valid yaml, or not a mapping.
    """
    if not path.is_file():
        near = nearest(path.name, [file.name for file in path.parent.glob("*.yaml")])
        hint = f" Did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"{path}: no such config file.{hint}")
    try:
        content = OmegaConf.load(path)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid yaml: {' '.join(str(error).split())}") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {first_line(error)}") from error
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{path}: expected keys with values, found something else.")
    return content


def read_options(options: Sequence[str]) -> DictConfig:
    """Return the settings of ``key=value`` words of a command line.

    Raises:
        ConfigError: a word that is not ``key=value``, or whose value is not valid yaml.
    """
    settings = OmegaConf.create()
    for option in options:
        if "=" not in option:
            raise ConfigError(f"--options: {option!r} is not of the form key=value, as run.max_epoch=5.")
        try:
            settings.merge_with_dotlist([option])
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise ConfigError(
                f"--options: {option!r}: the value is not valid yaml; a mapping is written {{key: value}}, "
                f"with a space ({first_line(error)})."
            ) from error
    return settings


def plain_values(config: DictConfig, throw_on_missing: bool = False) -> dict[str, Any]:
    """Return `config` as plain values, ``${...}`` resolved."""
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=throw_on_missing)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def is_set(options: Sequence[str], key_path: str) -> bool:
    """Return True where ``key=value`` words of a command line set `key_path` to a value."""
    return Layer("--options", read_options(options)).sets(key_path)


def _read_saved(path: Path) -> DictConfig:
    """Return the config of a run folder; it was resolved when it was saved."""
    config = read_saved_config(path)
    refuse_interpolations(config, str(path))
    return OmegaConf.create(config)


def _check_sections(top: DictConfig, source: str) -> None:
    for key in top:
        if key not in SECTIONS:
            raise ConfigError(f"{source}: {key!r} is not a section of a config.{suggest(str(key), SECTIONS)}")
    for name in ("model", "datasets", "run"):
        if not isinstance(top.get(name), DictConfig):
            raise ConfigError(f"{source}: the section {name!r} is missing or is not a mapping.")


def _import_modules(
    run_file: Layer,
    overrides: Layer,
    top: DictConfig,
    imports: Sequence[str],
    folder: Path,
    is_saved: bool,
    trust_imports: bool,
) -> list[str]:
    """Import the user's own modules and return their names; `folder` is that of the run file."""
    in_file = [] if "imports" in overrides.settings else run_file.settings.get("imports") or []
    by_caller = [*(overrides.settings.get("imports") or []), *imports]
    if is_saved:  # the caller's modules first: what is imported already needs no trust
        names = import_modules(by_caller)
        names = [*import_saved_modules(in_file, folder, trust_imports, top), *names]
    else:
        names = [*import_modules(in_file, relative_to=folder), *import_modules(by_caller)]
    return list(dict.fromkeys(names))


@contextmanager
def _unknown_names_at(where: str) -> Iterator[None]:
    """Turn the error of an unknown name into a ConfigError that says where the name stands."""
    try:
        yield
    except UnknownNameError as error:
        raise ConfigError(f"{where}: {error}") from error


def _dataset_layers(top: DictConfig, source: str) -> list[Layer]:
    """Return a layer for the default yaml of each data set; its key `type` chooses the variant."""
    if not top.datasets:
        raise ConfigError(
            f"{source}: datasets names no data set; known are {', '.join(registry.list_datasets())}."
        )
    layers = []
    for name, settings in top.datasets.items():
        with _unknown_names_at(f"{source}: datasets.{name}"):
            builder_class = registry.get_builder_class(name)
        with _unknown_names_at(f"{source}: datasets.{name}.type"):
            defaults = dataset_defaults(builder_class, name, (settings or {}).get("type", "default"))
        layers.append(Layer(f"defaults of {name}", OmegaConf.create({"datasets": {name: defaults}})))
    return layers


def _merge(layers: Sequence[Layer]) -> dict[str, Any]:
    """Merge from bottom to top, resolve ``${...}``, and give data sets without processors the model's."""
    merged = OmegaConf.merge(*(layer.settings for layer in layers))
    assert isinstance(merged, DictConfig)
    for settings in merged.datasets.values():
        for kind, default in (merged.get("preprocess") or {}).items():
            if settings is not None and kind not in settings:
                settings[kind] = default
    try:
        return plain_values(merged, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", "") or ""
        raise ConfigError(f"{_locate(layers, key)}: {key}: {first_line(error)}") from error


def _locate(layers: Sequence[Layer], key_path: str) -> str:
    """Return the name of the topmost layer that sets `key_path`, or that of the run file."""
    path = key_path.split("[")[0]
    setters = [layer.name for layer in layers if layer.sets(path)]
    return setters[-1] if setters else layers[-2].name


def _parse_sections(
    sections: Mapping[str, Any], model_class: type[BaseModel], layers: Sequence[Layer]
) -> tuple[BaseModel.Config, dict[str, BaseDatasetBuilder.Config], dict[str, Any], RunConfig]:
    """Return model, datasets, preprocess and run; all but preprocess as the `Config` of the class each names.

    Raises:
        ConfigError: all errors of all sections.
    """
    errors: list[str] = []
    locate = partial(_locate, layers)

    @contextmanager
    def collect_errors(key_path: str) -> Iterator[None]:
        try:
            with _unknown_names_at(f"{locate(key_path)}: {key_path}"):
                yield
        except ConfigError as error:
            errors.append(str(error))

    datasets = {}
    with collect_errors("model"):
        values = {key: value for key, value in sections["model"].items() if key not in MODEL_CHOICE}
        model = parse(model_class.Config, values, "model", locate)
        sections = with_shared_settings(sections, model_class, model)
    for name, settings in sections["datasets"].items():
        with collect_errors(f"datasets.{name}"):
            config_class = registry.get_builder_class(name).Config
            datasets[name] = parse(config_class, settings or {}, f"datasets.{name}", locate)
        for kind, split, processor in processors_of(settings):
            where = f"datasets.{name}.{kind}.{split}"
            with collect_errors(f"{where}.name"):
                processor_class = registry.get_processor_class(processor.get("name", ""))
                rest = {key: value for key, value in processor.items() if key != "name"}
                parse(processor_class.Config, rest, where, locate)
    values = sections["run"]
    with collect_errors("run.task"):
        task_class = registry.get_task_class(values.get("task", RunConfig.task))
        run = parse(task_class.Config, values, "run", locate)
    with collect_errors("run.runner"):
        registry.get_runner_class(values.get("runner", RunConfig.runner))
    with collect_errors("run.lr_sched"):
        registry.get_lr_scheduler_class(values.get("lr_sched", RunConfig.lr_sched))
    if not errors:
        differing = disagreements(sections, model_class, model)
        errors = [f"{locate(key_path)}: {error}" for key_path, error in differing]
    if errors:
        raise ConfigError("\n".join(errors))
    return model, datasets, sections.get("preprocess") or {}, run
