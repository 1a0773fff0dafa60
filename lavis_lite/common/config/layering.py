"""Layered configs: the run file and ``--options`` are merged, then the defaults slide beneath them.

From the top: ``--options a.b=c`` over the run file over the data set's default yaml over the
model's default yaml. Every section is then checked against the `Config` of the class that it
names, before anything is built.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.saved import (
    is_saved_config,
    read_saved_config,
    refuse_interpolations,
    write_saved_config,
)
from lavis_lite.common.config.schema import ConfigError, parse
from lavis_lite.common.config.user_modules import import_modules, import_saved_modules
from lavis_lite.common.files import first_line
from lavis_lite.common.registry import UnknownNameError, nearest, registry, suggest

DEFAULTS = Path(__file__).parents[2] / "configs"
SECTIONS = ("imports", "model", "datasets", "preprocess", "run")
# A processor setting that must agree with the model, and so is taken from it when not given.
SHARED_SETTINGS = (("vis_processor", "train", "image_size"), ("vis_processor", "eval", "image_size"))
SHARED_SETTINGS += (("text_processor", "train", "prompt"),)


@dataclass
class Layer:
    """One source of settings: what it is called in messages, and what it says."""

    name: str
    settings: DictConfig

    def sets(self, key_path: str) -> bool:
        try:
            return OmegaConf.select(self.settings, key_path, throw_on_missing=False) is not None
        except OmegaConfBaseException:
            return False


@dataclass
class ResolvedConfig:
    """A checked config.

    Attributes:
        sections: all of it as plain values, as it is saved with the run.
        run: the ``run`` section as the task's `Config`.
        source: the run file.
    """

    sections: dict[str, Any]
    run: RunConfig
    source: str

    @property
    def arch(self) -> str:
        return self.sections["model"]["arch"]

    @property
    def model(self) -> dict[str, Any]:
        """The model's `Config` fields."""
        return {k: v for k, v in self.sections["model"].items() if k not in ("arch", "model_type")}

    @property
    def datasets(self) -> dict[str, dict[str, Any]]:
        """Builder name -> its `Config` fields."""
        return self.sections["datasets"]

    def save(self, path: Path) -> None:
        """Write the config as yaml, whole or not at all."""
        write_saved_config(self.sections, path)


def load_config(
    cfg_path: str | Path,
    options: Sequence[str] = (),
    imports: Sequence[str] = (),
    trust_imports: bool = False,
) -> ResolvedConfig:
    """Read a run file, lay it over the defaults, check all of it.

    Args:
        options: overrides as ``a.b=c``.
        imports: the user's own modules, besides those that the file names.
        trust_imports: where the file is the config.yaml of a run folder: import the modules that it names.

    Raises:
        ConfigError: everything that is wrong, each with its file, key, value and nearest valid choice.
    """
    path = Path(cfg_path)
    saved = is_saved_config(path)
    run_file = Layer(str(cfg_path), _read_saved(path) if saved else read_yaml(path))
    overrides = Layer("--options", read_options(options))
    top = OmegaConf.merge(run_file.settings, overrides.settings)
    _check_sections(top, run_file.name)
    named_by_caller = [*(overrides.settings.get("imports") or []), *imports]
    named = [] if "imports" in overrides.settings else run_file.settings.get("imports") or []
    modules = [] if saved else import_modules(named, relative_to=path.parent)
    modules += import_modules(named_by_caller)
    if saved:
        modules = import_saved_modules(named, path.parent, trust_imports) + modules

    arch = _required(top, "model.arch", run_file.name, registry.list_models())
    model_class = _look_up(registry.get_model_class, arch, "model.arch", run_file.name)
    layers = [_model_layer(model_class, OmegaConf.select(top, "model.model_type"), run_file.name)]
    layers += _dataset_layers(top, run_file.name)
    layers += [run_file, overrides]
    merged = _merge(layers)

    sections = {name: merged.get(name) or {} for name in SECTIONS}
    sections["imports"] = list(dict.fromkeys(modules))
    sections["model"].setdefault("arch", arch)
    sections = with_shared_settings(sections)
    run = _check(sections, model_class, layers)
    _check_shared_settings(sections, layers)
    plain = yaml.safe_load(yaml.safe_dump(sections))  # tuples become lists, as in a saved config
    return ResolvedConfig(sections=plain, run=run, source=str(cfg_path))


def model_defaults(model_class: type, model_type: str | None) -> dict[str, Any]:
    """Return the default yaml of a model's type as plain values: ``model`` and ``preprocess``.

    Raises:
        UnknownNameError: the model has no such type.
    """
    types = model_class.default_configs
    if model_type is None and not types:
        return {"model": {}, "preprocess": {}}
    if model_type not in types:
        name = registry.models.name_of(model_class)
        raise UnknownNameError(
            f"The model {name!r} has no type {model_type!r}.{suggest(str(model_type), types)}"
        )
    defaults = OmegaConf.to_container(read_yaml(default_path("models", types[model_type])), resolve=True)
    return {"model": defaults.get("model") or {}, "preprocess": defaults.get("preprocess") or {}}


def dataset_defaults(builder_class: type, name: str, variant: str = "default") -> dict[str, Any]:
    """Return the default yaml of a data set, the part below its name, as plain values.

    Raises:
        UnknownNameError: the data set has no such variant.
    """
    variants = builder_class.default_configs
    if not variants:
        return {}
    if variant not in variants:
        raise UnknownNameError(f"The data set {name!r} has no type {variant!r}.{suggest(variant, variants)}")
    content = OmegaConf.to_container(read_yaml(default_path("datasets", variants[variant])), resolve=True)
    return next(iter((content.get("datasets") or {}).values()), None) or {}


def default_path(kind: str, name: str) -> Path:
    """Return a default yaml: a name in our configs, or a path of the user's own."""
    path = Path(name).expanduser()
    return path if path.suffix in (".yaml", ".yml") else DEFAULTS / kind / f"{name}.yaml"


def with_shared_settings(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return `sections` in which the processors take image size and prompt from the model."""
    sections = copy.deepcopy(dict(sections))
    model = sections["model"]
    for holder in (sections.get("preprocess") or {}, *(sections.get("datasets") or {}).values()):
        for processor, split, key in SHARED_SETTINGS:
            settings = ((holder or {}).get(processor) or {}).get(split)
            if settings and model.get(key) is not None and _takes(settings.get("name"), key):
                settings.setdefault(key, model[key])
    return sections


def _takes(processor_name: str | None, key: str) -> bool:
    """Tell whether the processor has a setting called `key`."""
    if processor_name not in registry.list_processors():
        return False
    return key in {field.name for field in fields(registry.get_processor_class(processor_name).Config)}


def _check_shared_settings(sections: Mapping[str, Any], layers: Sequence[Layer]) -> None:
    """Refuse processors that would feed the model another image size or prompt than it was built for."""
    for dataset, settings in sections["datasets"].items():
        for processor, split, key in SHARED_SETTINGS:
            given = ((settings.get(processor) or {}).get(split) or {}).get(key)
            wanted = sections["model"].get(key)
            if given is not None and wanted is not None and given != wanted:
                path = f"datasets.{dataset}.{processor}.{split}.{key}"
                raise ConfigError(
                    f"{_locate(layers, path)}: {path} is {given!r} but model.{key} is {wanted!r}; "
                    f"they must agree. Leave {key} out of the processor to take the model's."
                )


def read_yaml(path: Path) -> DictConfig:
    """Return the content of a yaml file.

    Raises:
        ConfigError: no such file, no valid yaml, or no keys in it.
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
    """Return what the words of a command line set.

    Raises:
        ConfigError: a word that is not ``key=value``, or whose value is no valid yaml.
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


def is_set(options: Sequence[str], key_path: str) -> bool:
    """Return True where the words of a command line set `key_path` to something."""
    return Layer("--options", read_options(options)).sets(key_path)


def _read_saved(path: Path) -> DictConfig:
    """Return the config of a run folder, which is not resolved again."""
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


def _required(top: DictConfig, key_path: str, source: str, choices: Iterable[str]) -> str:
    value = OmegaConf.select(top, key_path)
    if not isinstance(value, str):
        raise ConfigError(f"{source}: {key_path} is missing; choose one of {', '.join(choices)}.")
    return value


def _look_up(get: Any, name: str, key_path: str, source: str) -> type:
    try:
        return get(name)
    except UnknownNameError as error:
        raise ConfigError(f"{source}: {key_path}: {error}") from error


def _model_layer(model_class: type, model_type: str | None, source: str) -> Layer:
    try:
        defaults = model_defaults(model_class, model_type)
    except UnknownNameError as error:
        raise ConfigError(f"{source}: model.model_type: {error}") from error
    return Layer(f"defaults of the type {model_type!r}", OmegaConf.create(defaults))


def _dataset_layers(top: DictConfig, source: str) -> list[Layer]:
    """Return a layer for each data set's default yaml, the variant chosen by its key `type`."""
    if not top.datasets:
        raise ConfigError(
            f"{source}: datasets names no data set; known are {', '.join(registry.list_datasets())}."
        )
    layers = []
    for name, settings in top.datasets.items():
        where = f"datasets.{name}"
        builder_class = _look_up(registry.get_builder_class, name, where, source)
        variant = (settings or {}).get("type", "default")
        try:
            defaults = dataset_defaults(builder_class, name, variant)
        except UnknownNameError as error:
            raise ConfigError(f"{source}: {where}.type: {error}") from error
        layers.append(Layer(f"defaults of {name}", OmegaConf.create({"datasets": {name: defaults}})))
    return layers


def _merge(layers: Sequence[Layer]) -> dict[str, Any]:
    """Merge bottom to top, resolve ``${...}``, and let the model's processors stand in for missing ones."""
    merged = OmegaConf.merge(*(layer.settings for layer in layers))
    for settings in merged.datasets.values():
        for kind, default in (merged.get("preprocess") or {}).items():
            if settings is not None and kind not in settings:
                settings[kind] = default
    try:
        return OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", "") or ""
        raise ConfigError(f"{_locate(layers, key)}: {key}: {first_line(error)}") from error


def _locate(layers: Sequence[Layer], key_path: str) -> str:
    """Return the name of the topmost layer that sets `key_path`, or the run file's."""
    path = key_path.split("[")[0]
    setters = [layer.name for layer in layers if layer.sets(path)]
    return setters[-1] if setters else layers[-2].name


def _check(sections: dict[str, Any], model_class: type, layers: Sequence[Layer]) -> RunConfig:
    """Check every section against the class it names and fill in its defaults; return the typed ``run``.

    Raises:
        ConfigError: all faults of all sections.
    """
    faults: list[str] = []

    def check(config_class: type, values: Mapping[str, Any], where: str) -> Any:
        try:
            return parse(config_class, values, where, locate=lambda path: _locate(layers, path))
        except ConfigError as error:
            faults.append(str(error))
            return None

    def look_up(get: Any, name: str, where: str) -> type | None:
        try:
            return get(name)
        except UnknownNameError as error:
            faults.append(f"{_locate(layers, where)}: {where}: {error}")
            return None

    model = {key: value for key, value in sections["model"].items() if key not in ("arch", "model_type")}
    parsed_sections: dict[str, Any] = {"model": check(model_class.Config, model, "model")}
    for name, settings in sections["datasets"].items():
        where = f"datasets.{name}"
        parsed_sections[name] = check(registry.get_builder_class(name).Config, settings or {}, where)
        for kind in ("vis_processor", "text_processor"):
            for split, processor in ((settings or {}).get(kind) or {}).items():
                path = f"{where}.{kind}.{split}"
                processor_name = (processor or {}).get("name", "")
                processor_class = look_up(registry.get_processor_class, processor_name, f"{path}.name")
                if processor_class is not None:
                    rest = {key: value for key, value in processor.items() if key != "name"}
                    check(processor_class.Config, rest, path)
    run = sections["run"]
    task = look_up(registry.get_task_class, run.get("task", RunConfig.task), "run.task")
    look_up(registry.get_runner_class, run.get("runner", RunConfig.runner), "run.runner")
    look_up(registry.get_lr_scheduler_class, run.get("lr_sched", RunConfig.lr_sched), "run.lr_sched")
    parsed = check(task.Config, run, "run") if task is not None else None
    if faults:
        raise ConfigError("\n".join(faults))
    arch = {key: sections["model"].get(key) for key in ("arch", "model_type")}
    sections["model"] = {**arch, **asdict(parsed_sections["model"])}
    sections["datasets"] = {name: asdict(parsed_sections[name]) for name in sections["datasets"]}
    sections["run"] = asdict(parsed)
    return parsed
