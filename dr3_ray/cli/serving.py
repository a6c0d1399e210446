"""`dr3-ray serve`: the report while a sweep runs."""

import sys
from contextlib import suppress
from ipaddress import ip_address
from typing import Annotated

import typer

from dr3_ray.cli.numbers import count

HOST, PORT = "127.0.0.1", 8300


def serve(
    run: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="A run directory, or the --storage of a sweep; or several.")
    ],
    host: Annotated[
        str, typer.Option(help="Where to listen. Other than the default: others can read the results, too.")
    ] = HOST,
    port: Annotated[int, typer.Option(help="0: one that is free, which is printed.", **count(0, 65535))] = PORT,
) -> None:
    """Show the report in a browser while the sweep goes on, built anew as results come in; several runs are compared.

    Nothing is written into RUN, and nothing can be asked for but the page with its tables and pictures. Ctrl-C ends it.

    Example: dr3-ray serve runs/breakout

    Example: dr3-ray serve runs/cql runs/iql --port 0
    """
    from dr3_ray.report.serving import serve as answer

    def tell(address: str) -> None:
        print(f"{address} shows {', '.join(run)}; Ctrl-C ends it", flush=True)
        if not _is_own(host):
            print(f"warning: whoever reaches {host} can read these results", file=sys.stderr, flush=True)

    with suppress(KeyboardInterrupt):
        answer(run, host, port, tell, lambda line: print(f"error: {line}", file=sys.stderr, flush=True))


def _is_own(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"
