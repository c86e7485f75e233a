"""A page to drop a picture on, such as one shows to colleagues. Needs nothing beside the engine: Python's own HTTP server.

    python examples/page.py engines/built/fashion-resnet18-int8 [port]      # then open http://localhost:8000

For this machine only. What the world may reach is `toolkit serve`, with its limits and its queue.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import toolkit

MOST = 20 << 20  # bytes of a picture's file
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>NAME</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 36rem; margin: 3rem auto; padding: 0 1rem }
label { display: block; border: 2px dashed #888; border-radius: 8px; padding: 2rem; text-align: center; cursor: pointer }
img { max-width: 100%; margin-top: 1rem } meter { width: 100% } [role=alert] { color: #b00020 }
</style><h1>NAME</h1>
<label id="drop">Drop a picture here, or choose one<br><input id="file" type="file" accept="image/*"></label>
<p id="error" role="alert"></p><div id="answers" aria-live="polite"></div><img id="shown" alt="">
<script>
const byId = id => document.getElementById(id)
async function ask(file) {
  byId("shown").src = URL.createObjectURL(file)
  byId("answers").replaceChildren(); byId("error").textContent = ""
  const reply = await fetch("/classify", { method: "POST", body: file })
  const found = await reply.json()
  if (!reply.ok) { byId("error").textContent = found.error; return }
  for (const one of found) {
    const row = document.createElement("p"), bar = document.createElement("meter")
    bar.value = one.probability
    row.append(`${one.label} ${(100 * one.probability).toFixed(1)} %`, bar)
    byId("answers").append(row)
  }
}
byId("file").onchange = event => event.target.files[0] && ask(event.target.files[0])
byId("drop").ondragover = event => event.preventDefault()
byId("drop").ondrop = event => { event.preventDefault(); event.dataTransfer.files[0] && ask(event.dataTransfer.files[0]) }
</script></html>
"""


def handler_of(runner: toolkit.Runner) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30  # seconds, for a caller that sends nothing more

        def do_GET(self) -> None:
            if self.path == "/":
                self.reply(200, "text/html; charset=utf-8", PAGE.replace("NAME", runner.manifest.name))
            else:
                self.answer(404, {"error": "there is one page here: /"})

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if self.path != "/classify" or not length.isdigit() or not 0 < int(length) <= MOST:
                what = f"POST a picture of at most {MOST >> 20} MiB to /classify, its length in Content-Length"
                self.close_connection = True
                self.answer(400, {"error": what})
                return
            try:
                best = runner.classify(self.rfile.read(int(length)))[0]
                self.answer(200, [prediction._asdict() for prediction in best])
            except toolkit.ToolkitError as error:
                self.answer(400, {"error": str(error)})

        def answer(self, code: int, value: object) -> None:
            self.reply(code, "application/json", json.dumps(value))

        def reply(self, code: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def main(engine: str, port: str = "8000") -> None:
    with toolkit.load(engine) as runner, ThreadingHTTPServer(("127.0.0.1", int(port)), handler_of(runner)) as server:
        print(f"http://localhost:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except toolkit.ToolkitError as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        pass
