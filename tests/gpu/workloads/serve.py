# Copyright (c) 2026 the gpuops.restore contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTP inference server with a client that keeps its connection, both in one container, over 127.0.0.1.

The client writes each answer to ``work/steps.txt``; its connection is made once, so an answer after a restore shows
that connection, server and model came back together.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import http.server
import os

import steps
import torch

PORT = 8080


def serve(device: str) -> None:
    """Answer ``/N`` with the digest of what the model makes of input N. Never returns."""
    torch.manual_seed(7)
    model = (
        torch.nn.Sequential(torch.nn.Linear(512, 2048), torch.nn.GELU(), torch.nn.Linear(2048, 512)).to(device).eval()
    )

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: N802
            generator = torch.Generator().manual_seed(int(self.path[1:]))
            with torch.inference_mode():
                found = model(torch.randn(8, 512, generator=generator).to(device)).cpu()
            text = hashlib.sha256(found.numpy().tobytes()).hexdigest().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_unused: object) -> None:
            return

    http.server.HTTPServer(("127.0.0.1", PORT), Handler).serve_forever()


def main() -> None:
    options = steps.arguments(argparse.ArgumentParser())
    # The client must not be a fork of a CUDA process: it begins before CUDA does.
    if os.fork() == 0:
        serve("cpu" if options.cpu else "cuda")
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
    while True:
        try:
            connection.connect()
            break
        except ConnectionRefusedError:
            connection.close()
    connected = connection.sock
    with steps.Log(options) as log:
        for number in range(options.steps):
            connection.request("GET", f"/{number}")
            log.step(connection.getresponse().read().decode())
            if connection.sock is not connected:
                raise SystemExit("the connection was lost and made anew")


if __name__ == "__main__":
    main()
