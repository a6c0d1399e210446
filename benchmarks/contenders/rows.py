"""Rows of a data set, drawn at random: by our reader, by NumPy's indexing in memory, or by d3rlpy's buffer."""

import numpy as np
from turns import asked, take_turns

case = asked()
rng, batch, columns = np.random.default_rng(0), case["batch"], case["columns"]


def ours() -> object:
    import torch

    from dr3_ray.data import load_dataset
    from dr3_ray.training.process import prepare_training

    prepare_training()  # how a trial begins: memory that is freed stays with the process
    torch.set_num_threads(1)
    data = load_dataset(case["dataset"])
    return lambda: data.gather(torch.from_numpy(rng.integers(0, len(data), batch)), columns)


def numpy() -> object:
    held = {name: np.load(f"{case['arrays']}/{name}.npy") for name in columns}
    rows = len(held["rewards"])

    def draw() -> None:
        drawn = rng.integers(0, rows, batch)
        for values in held.values():
            values[drawn]

    return draw


def d3rlpy() -> object:
    from d3rlpy.dataset import MDPDataset
    from d3rlpy.dataset.transition_pickers import BasicTransitionPicker, FrameStackTransitionPicker

    held = {name: np.load(f"{case['arrays']}/{name}.npy") for name in (*columns, "truncateds")}
    seen, stack = held["observations"], case["stack"]
    if stack > 1:  # it stores frames, the channel first, and stacks them as they are drawn
        seen = seen[:, -1:] if seen.shape[1] == stack else seen[..., -1:].transpose(0, 3, 1, 2)
        seen = np.ascontiguousarray(seen)
    picker = FrameStackTransitionPicker(stack) if stack > 1 else BasicTransitionPicker()
    buffer = MDPDataset(
        seen, held["actions"], held["rewards"], held["terminateds"], held["truncateds"], transition_picker=picker
    )
    return lambda: buffer.sample_transition_batch(batch)


draw = {"ours": ours, "numpy": numpy, "d3rlpy": d3rlpy}[case["who"]]()


def draw_batches(n: int) -> None:
    for _ in range(n):
        draw()  # type: ignore[operator]


take_turns(draw_batches)
