"""`import dr3_ray` and a Population leave the process that they are used in as it was."""

import json
import os
import subprocess
import sys

from dr3_ray.process.folders import CACHES

CODE = """
import ctypes, gc, json, logging, os, random, signal, sys, threading, warnings
import gymnasium, numpy, pyarrow, torch

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

class Blocks(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd a b c d e".split()]

libc.mallinfo2.restype = Blocks

def large_blocks_are_given_back():
    before, block = libc.mallinfo2().hblks, libc.malloc(1 << 26)
    own = libc.mallinfo2().hblks - before
    libc.free(block)
    return own

def snapshot():
    loggers = {name: each.level for name, each in logging.root.manager.loggerDict.items() if hasattr(each, "level")}
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "denormals": float(torch.tensor([1e-40]) * 0.5) != 0,
        "type": str(torch.get_default_dtype()),
        "gradients": torch.is_grad_enabled(),
        "deterministic": [torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark],
        "precision": torch.get_float32_matmul_precision(),
        "random": [torch.get_rng_state().tolist(), str(numpy.random.get_state()), str(random.getstate())],
        "warnings": [str(each) for each in warnings.filters],
        "logging": [logging.root.level, len(logging.root.handlers), logging.root.manager.disable],
        "loggers": {name: level for name, level in loggers.items() if name in known or level},
        "signals": [str(signal.getsignal(number)) for number in (1, 2, 10, 12, 15, 17)],
        "wakeup": signal.set_wakeup_fd(-1),
        "hooks": [str(sys.excepthook), str(threading.excepthook), str(sys.unraisablehook), str(sys.displayhook)],
        "streams": [id(sys.stdout), id(sys.stderr), id(sys.stdin)],
        "garbage": [gc.isenabled(), gc.get_freeze_count(), list(gc.get_threshold())],
        "mallopt": large_blocks_are_given_back(),
        "recursion": sys.getrecursionlimit(),
        "path": sys.path,
        "running": threading.active_count(),
    }

known = set(logging.root.manager.loggerDict)
before = snapshot()
import dr3_ray
imported = snapshot()
from dr3_ray.algorithms.registry import find
from dr3_ray.data import load_dataset
from dr3_ray.training.member import Member
from dr3_ray.training.population import Population
for name, source, kind in (("DR3-CQL", "breakout", "discrete"), ("DR3-IQL", "pendulum", "continuous")):
    data, algorithm = load_dataset(f"embedded:{source}-replay"), find(name, kind)
    members = [Member.from_dict(algorithm, {"hidden_sizes": [8], "batch_size": 16, "seed": seed}) for seed in (0, 1)]
    population = Population.of(algorithm, members, data, data.spaces)
    population.update(2)
    population.probe()
    population.keep([1]).update(1)
trained = snapshot()
print(json.dumps([before, imported, trained]))
"""


def test_nothing_of_the_process_changes(tmp_path):
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, cwd=tmp_path)
    before, imported, trained = json.loads(done.stdout)
    assert before["mallopt"] == 1 and before["denormals"]  # or there is nothing to see
    for name in before:
        assert imported[name] == before[name], name
        assert trained[name] == before[name], name
    assert not done.stderr
    assert not list(tmp_path.iterdir())


def test_what_an_entry_point_changes_is_seen_by_it(tmp_path):
    entry = "import dr3_ray\nfrom dr3_ray.training.process import prepare_training\nprepare_training()"
    code = CODE.replace("import dr3_ray\n", f"{entry}\n", 1)
    settled = {name: value for name, value in os.environ.items() if name not in CACHES}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=settled)
    before, imported, _ = json.loads(done.stdout)
    assert {name for name in before if imported[name] != before[name]} == {
        "mallopt",
        "denormals",
        "environment",
        "garbage",
    }
