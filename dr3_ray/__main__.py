"""`dr3-ray`, and `python -m dr3_ray`: a command line that can be stopped from its first moment on."""

from dr3_ray.process.stopping import run_command


def main(arguments: list[str] | None = None, name: str = "dr3-ray") -> None:
    """Import the command line and run it."""

    def work() -> None:
        from dr3_ray.cli.app import main as run

        run(arguments, name)

    run_command(work)


if __name__ == "__main__":
    main()
