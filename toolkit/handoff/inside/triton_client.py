"""Ask a running Triton about pictures, over HTTP or gRPC. It needs nothing but tritonclient and numpy:

    pip install 'tritonclient[http,grpc]'
    python client.py photo.jpg ...                     # HTTP on localhost:8000
    python client.py --grpc --url host:8001 photo.jpg ...

An answer is score:column:label, the largest first.
"""

import argparse

import numpy as np

MODEL, INPUT, OUTPUT = "{model}", "{input}", "{output}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--grpc", action="store_true")
    parser.add_argument("--url")
    parser.add_argument("--top", type=int, default=5)
    options = parser.parse_args()
    if options.grpc:
        import tritonclient.grpc as protocol
    else:
        import tritonclient.http as protocol
    client = protocol.InferenceServerClient(options.url or ("localhost:8001" if options.grpc else "localhost:8000"))
    for path in options.pictures:
        with open(path, "rb") as file:
            picture = np.array([[file.read()]], object)  # [1, 1]: a batch of one picture
        asked = protocol.InferInput(INPUT, picture.shape, "BYTES")
        asked.set_data_from_numpy(picture)
        wanted = protocol.InferRequestedOutput(OUTPUT, class_count=options.top)
        try:
            answer = client.infer(options.model, [asked], outputs=[wanted])
        except protocol.InferenceServerException as error:
            print(f"{path}: {error.message()}")
            continue
        print(path, *(one.decode() for one in answer.as_numpy(OUTPUT).reshape(-1)), sep="  ")  # score:index:label


if __name__ == "__main__":
    main()
