"""`dr3-ray`, and `python -m dr3_ray`: a command line that can be stopped from its first moment on."""

import gc

from dr3_ray.process.stopping import run_command

# Objects between two looks for garbage, of which imports make none: with Python's own 700, and 10 of these, a command
# spends a tenth of its time on them (benchmarks/README.md).
LOOKS = 100_000, 20, 20


def main(arguments: list[str] | None = None, name: str = "dr3-ray") -> None:
    """Import the command line and run it."""

    gc.set_threshold(*LOOKS)

    def work() -> None:
        from dr3_ray.cli.app import main as run

        run(arguments, name)

    run_command(work)


if __name__ == "__main__":
    main()
