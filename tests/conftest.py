"""Settings of every test."""

import os

# Small models on few cores: more threads than cores only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings
from jaxtyping import install_import_hook

# Here, and nowhere else, annotations are checked at run time, array shapes among them. The hook
# acts on what is imported from now on; with the tower an int is a float, as it is for mypy.
install_import_hook(
    ["mbmrl", "controllers", "robots"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

# The same examples every time, and no failure because a machine is slow.
settings.register_profile("mbmrl", derandomize=True, deadline=None)
settings.load_profile("mbmrl")
