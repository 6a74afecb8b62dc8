"""The id of a deployment: a hash of what an app registers and of the sources that stand beside it."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from types import ModuleType

from stepwell.v1 import function_pb2


def deployment_id(specs: Iterable[function_pb2.FunctionSpec], modules: Iterable[str]) -> str:
    """16 hex digits: the same for the same code, on every machine (H15).

    Hashed are the registration and every loaded module from the folders (whole packages) of the named modules; a
    change in a library does not make another deployment.
    """
    digest = blake2b(digest_size=8)
    for spec in sorted(specs, key=lambda one: one.name):
        digest.update(spec.SerializeToString(deterministic=True))
    for name, content in sorted(_sources(set(modules))):
        digest.update(f"\0{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _sources(modules: set[str]) -> Iterator[tuple[str, bytes]]:
    roots = {root for name in modules if (root := _root(sys.modules.get(name))) is not None}
    for module in list(sys.modules.values()):
        path = _file(module)
        if path is None:
            continue
        root = next((root for root in roots if path.is_relative_to(root)), None)
        if root is not None:
            try:
                yield path.relative_to(root).as_posix(), path.read_bytes()
            except OSError:
                continue  # a module that is not a file of its own, such as one in a zip


def _root(module: ModuleType | None) -> Path | None:
    """The folder whose modules belong to the same app: of the module's top package, or of the module itself."""
    path = _file(module)
    if module is None or path is None:
        return None
    depth = module.__name__.count(".") if module.__name__ != "__main__" else 0
    is_package = path.stem == "__init__"
    for _ in range(depth - 1 + is_package if depth else 0):
        path = path.parent
    return path.parent


def _file(module: ModuleType | None) -> Path | None:
    name = getattr(module, "__file__", None)
    if not isinstance(name, str) or not name.endswith(".py"):
        return None
    path = Path(name)
    return None if any(path.is_relative_to(library) for library in _LIBRARIES) else path


_LIBRARIES = tuple({Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib")})
