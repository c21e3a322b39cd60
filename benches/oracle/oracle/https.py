"""nginx with TLS, and Python's clients with TLS, which keep their connections: OpenSSL at both ends."""

import subprocess
import sys
from pathlib import Path

from . import fetch
from .stacks import Kind, Service

CLIENTS = 8

CONFIGURATION = """
daemon off; user root; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off; keepalive_requests 1000000;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/certificate; ssl_certificate_key {folder}/key;
        location / {{ return 200 "ok\\n"; }}
    }}
}}
"""

CLIENT = """
import http.client, ssl, sys, time
port, seconds = int(sys.argv[1]), float(sys.argv[2])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
connection = http.client.HTTPSConnection("127.0.0.1", port, context=context)
until, number = time.monotonic() + seconds, 0
while time.monotonic() < until:
    number += 1
    connection.request("GET", f"/work/{number}")
    connection.getresponse().read()
"""


class Https:
    def start(self, folder):
        def command(port, _, folder):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                            "/CN=localhost", "-keyout", folder / "key", "-out", folder / "certificate"],
                           check=True, stderr=subprocess.DEVNULL)
            (Path(folder) / "nginx.conf").write_text(CONFIGURATION.format(folder=folder, port=port))
            return [fetch.nginx(), "-e", folder / "error.log", "-p", folder, "-c", folder / "nginx.conf"]
        fetch.need("openssl")
        self.service = Service(0, Kind("nginx", command, has_sdk=False), None, folder, "inferred", 0, with_sdk=False)
        self.service.await_listening()

    def drive(self, seconds):
        command = [sys.executable, "-c", CLIENT, str(self.service.port), str(seconds)]
        clients = [subprocess.Popen(command) for _ in range(CLIENTS)]
        if any([client.wait() for client in clients]):
            raise SystemExit("a client failed")

    def stop(self):
        self.service.stop()
