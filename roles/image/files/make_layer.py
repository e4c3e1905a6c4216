# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in the build of an image: makes the layer an environment of the image's Python, and compiles bytecode.

The image's time replaces that of each file, so bytecode must not be compared with that of its source.
"""

import compileall
import sys
from py_compile import PycInvalidationMode

from forge_layer.layer import make_environment

make_environment("/app/layer", "/app/layer", sys.executable)
# In one process and in the order of names: the same input gives the same bytes.
compileall.compile_dir("/app", quiet=2, workers=1, maxlevels=100, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
