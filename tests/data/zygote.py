"""Run `python -m dr3_ray ARGS` for each JSON line on stdin, in a process forked after the slow imports.

A real process with its own exit code and file descriptors, without the seconds that torch and minari take to load.
"""

import json
import os
import sys
import traceback
from importlib import import_module

from dr3_ray.cli.app import main

for module in ("minari.dataset._storages.arrow_storage", "minari.dataset._storages.hdf5_storage", "rich.table"):
    import_module(module)
for module in ("dr3_ray.data.importers.minari", "dr3_ray.data.reader"):
    import_module(module)

for line in sys.stdin:
    request = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    os.environ.update(request["env"])
    for descriptor, path in ((1, request["stdout"]), (2, request["stderr"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.argv = ["dr3-ray", *request["args"]]
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)  # taking down the interpreter is slow, and not what is tested
