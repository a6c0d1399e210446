"""The most that can be meant: more is a slip of the keyboard, by which a process would hang or run out of memory."""

COUNT = 10**15
"""Of steps, episodes for a mean, and whatever is only counted; the index keeps numbers below 2^53."""
PROCESSES = 10_000
"""Of one job, as of machines, trials at a time and starts again."""
SHARE = 10_000
"""CPUs or GPUs of one process."""
RESOURCE = 10**14
"""Of any other resource, such as bytes; Ray counts ten-thousandths in 64 bits."""
SECONDS = 10**8
"""Three years; operating systems take no more than some hundred."""
EPISODES = 100_000
"""Of a member in an evaluation: each has an environment of its own."""
MEMBERS = 1_000_000
"""Of a sweep, and values of one axis; 20,000 were tried (benchmarks/scale.py)."""
