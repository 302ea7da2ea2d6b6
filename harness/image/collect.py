# SPDX-License-Identifier: GPL-2.0-or-later
"""Copies what a program needs of the standard library; a script for the interpreter that is copied.

    python -I -S -B collect.py ROOT FOLDER MODULES WITHOUT

FOLDER (a path in the guest, below ROOT on disk) holds the program's own packages. Imports MODULES (comma-
separated) from there while WITHOUT are missing, puts every standard-library module that came in below ROOT at
its own path (bytecode in place of a source, shared objects as they are), and compiles the program's own
modules beside their sources, so that its tracebacks show them. Prints the shared objects' paths.

What an import pulls in is asked of the interpreter: a static analysis finds three times as much. This is a
process of its own because sys.modules must hold nothing else.
"""

import sys


def import_all(names: str, without: str, folder: str) -> list[str]:
    """The sources and shared objects that importing `names` loads, sorted."""
    sys.path.insert(0, folder)
    modules: dict[str, object] = dict.fromkeys(filter(None, without.split(",")))
    vars(sys)["modules"].update(modules)  # None in sys.modules makes an import fail (import system reference)
    for name in filter(None, names.split(",")):
        __import__(name)
    loaded = {getattr(module, "__file__", None) for name, module in sys.modules.items() if name != "__main__"}
    return sorted(filter(None, loaded))


def main(root: str, folder: str, names: str, without: str) -> None:
    origins = import_all(names, without, root + folder)
    # Only now, as all this is not what the program needs.
    import shutil
    from pathlib import Path
    from py_compile import PycInvalidationMode, compile

    unchecked = PycInvalidationMode.UNCHECKED_HASH  # no source is looked at when the guest imports it
    for origin in map(Path, origins):
        target = Path(root + str(origin))
        if origin.is_relative_to(root):
            shown = "/" + str(origin.relative_to(root))
            compile(str(origin), dfile=shown, doraise=True, invalidation_mode=unchecked)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if origin.suffix == ".py":
            bytecode = str(target.with_suffix(".pyc"))
            # Neither asserts nor docstrings: less to read and to unmarshal at every start.
            compile(str(origin), bytecode, str(origin), True, 2, unchecked)
        else:
            shutil.copyfile(origin, target)
            print(origin)


if __name__ == "__main__":
    main(*sys.argv[1:])
