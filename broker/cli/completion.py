"""``broker completion``: the script by which a shell completes commands and options."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from cyclopts import App, Parameter

from broker.cli import output

_EXAMPLES: Final = """\
The script is of this version of the command: make it anew after an upgrade.

Examples:

  broker completion bash > ~/.local/share/bash-completion/completions/broker
  broker completion zsh > ~/.zfunc/_broker
  broker completion fish > ~/.config/fish/completions/broker.fish
  source <(broker completion bash)
"""

app = App(name="completion", help_epilogue=_EXAMPLES)


@app.default
def completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish"], Parameter(help="The shell it is for.", metavar="SHELL")
    ],
    /,
) -> None:
    """Print a shell's completion script."""
    from broker.cli.main import build

    output.text(build().generate_completion(prog_name="broker", shell=shell))
