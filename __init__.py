"""Not a part of the package `ringline`, and not installed.

Python in the parent folder finds a clone that is named `ringline` before it looks for the installed
package. This file hands over to that one, so that nobody imports a clone that is not compiled, or
one half from each.
"""

import os
import sys
from importlib.util import module_from_spec
from itertools import product

if __name__ == "ringline":  # pytest imports this file under the name of the clone's folder
    here = os.path.dirname(os.path.realpath(__file__))
    # One folder at a time: there may be more clones, and links to this one.
    for finder, place in product(sys.meta_path, sys.path):
        found = finder.find_spec(__name__, [place])
        if found is None or found.loader is None:
            continue
        folder = os.path.dirname(found.origin or "")
        if not os.path.exists(os.path.join(folder, "package", "__init__.py")):  # no clone
            package = module_from_spec(found)
            sys.modules[__name__] = package
            found.loader.exec_module(package)
            break
    else:
        raise ImportError(
            f"{here} is the source of ringline, and ringline is not installed for this Python: "
            f"pip install {here}"
        )
