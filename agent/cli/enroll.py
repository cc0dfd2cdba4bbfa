"""`edgelut-agent enroll`: exchange a token for this board's certificate. The key is made here and stays here."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from agent.config import text_of
from protos.enrolment import enrol
from protos.errors import BadInputError
from protos.tokens import Token


def main(options: argparse.Namespace) -> int:
    """Raises BadInputError for a token that is none or a folder that cannot be written, and what the coordinator
    refuses.
    """
    from agent.options import certificate_directory

    token = Token.read(options.token)
    if token.role != "agent":
        raise BadInputError(f"this token is for {token.name}, {token.role}: use it with `coordinator join`")
    folder: Path = options.identity or certificate_directory(token.name)
    identity = enrol(token, folder)
    until = time.strftime("%Y-%m-%d", time.localtime(identity.expires_wall_s))
    print(f"This board is {identity.name} ({identity.device_type}) until {until}; the agent renews it before.")
    if options.write_config is not None:
        settings = {
            "coordinator": token.address,
            "device_type": identity.device_type,
            "name": identity.name,
            "meter": options.meter,
        }
        options.write_config.write_text(text_of(settings), "utf-8")
        print(f"Its settings are in {options.write_config}.")
        return 0
    print("Next:")
    print(
        f"edgelut-agent run --coordinator {token.address} --device-type {identity.device_type} --name {identity.name}"
        + (f" --identity {options.identity}" if options.identity else "")
    )
    return 0
