"""
What sets the classes of the installed package apart from the copies of them that a repository may carry.

Transformers writes code beside what it saves if the class was loaded with `trust_remote_code=True`, and asks for that
flag if a config names code. Neither is wanted of classes that are installed, by whatever way they were found.
"""

PACKAGE = "transformers_omnivinci"


def is_installed(cls: type) -> bool:
    """Whether a class is the package's own: not one of a repository, and not a subclass elsewhere."""
    return cls.__module__.partition(".")[0] == PACKAGE


class InstalledCode:
    """Mixin of the classes that an `auto_map` may name."""

    @classmethod
    def register_for_auto_class(cls, *args, **kwargs):
        """As in transformers, but installed classes are not saved as code."""
        if not is_installed(cls):
            super().register_for_auto_class(*args, **kwargs)


class InstalledSettings(InstalledCode):
    """Mixin of those of them that are made from a dictionary which may name code."""

    @classmethod
    def from_dict(cls, settings: dict, **kwargs):
        """As in transformers, but installed classes leave out which code the repository has for them."""
        if is_installed(cls):
            settings = {name: settings[name] for name in settings if name not in ("auto_map", "custom_pipelines")}
        return super().from_dict(settings, **kwargs)
