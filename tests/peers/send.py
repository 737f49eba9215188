"""send.py CLIENT PORT FILE...: sends each message and prints what the client makes of each answer, `CODE CONTROL-ID` from MSA-1 and MSA-2.

`asyncio` is hl7's coroutine client, `client` its MLLPClient, `batch` and `file` send all in one of python-hl7's batches or files, `hl7apy` reads the answers with hl7apy's strict parser over a plain socket.
"""

import asyncio
import pathlib
import socket
import sys

import hl7
import hl7.client
import hl7.mllp


def told(code, control_id):
    print(code, control_id, flush=True)


async def with_asyncio(port, messages):
    reader, writer = await hl7.mllp.open_hl7_connection("127.0.0.1", port, encoding="utf-8")
    for message in messages:
        writer.writemessage(hl7.parse(message))
        await writer.drain()
        answer = await asyncio.wait_for(reader.readmessage(), 10)
        told(answer["MSA.F1"], answer["MSA.F2"])
    writer.close()
    await writer.wait_closed()


def with_client(port, messages):
    # It sends with one call of send() and reads with one of recv(): what does not fit is cut.
    with hl7.client.MLLPClient("127.0.0.1", port, encoding="utf-8") as client:
        for message in messages:
            answer = hl7.parse(client.send_message(message).decode("utf-8").strip("\x0b\x1c\r"))
            told(answer["MSA.F1"], answer["MSA.F2"])


def with_hl7apy(port, messages):
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.parser import parse_message

    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        answers = connection.makefile("rb")
        for message in messages:
            connection.sendall(b"\x0b" + message.encode("utf-8") + b"\x1c\r")
            frame = bytearray()
            while not frame.endswith(b"\x1c\r"):
                byte = answers.read(1)
                assert byte, "the connection was closed"
                frame += byte
            # Strict: unknown fields, missing required ones and values of a wrong type are errors.
            answer = parse_message(frame.decode("utf-8").strip("\x0b\x1c\r"), validation_level=VALIDATION_LEVEL.STRICT)
            answer.validate()
            told(answer.msa.msa_1.value, answer.msa.msa_2.value)


def with_batch(port, messages):
    # A batch as python-hl7 writes it; the answer as its own parser of batches reads it.
    batch = hl7.parse_batch("BHS|^~\\&|SENDER|HERE|KILN|THERE|20260301||batch||B1\r" + "".join(messages) + f"BTS|{len(messages)}\r")
    with hl7.client.MLLPClient("127.0.0.1", port, encoding="utf-8") as client:
        answer = hl7.parse_batch(client.send_message(str(batch)).decode("utf-8").strip("\x0b\x1c\r"))
    assert str(answer.header[12]) == "B1", answer.header
    assert str(answer.trailer[1]) == str(len(messages)), answer.trailer
    for message in answer:
        told(message["MSA.F1"], message["MSA.F2"])


def with_file(port, messages):
    # Two batches in a file.
    half = len(messages) // 2
    batches = [messages[:half], messages[half:]]
    text = "".join(f"BHS|^~\\&|SENDER|HERE|KILN|THERE|20260301||||B{n}\r" + "".join(b) + f"BTS|{len(b)}\r" for n, b in enumerate(batches))
    file = hl7.parse_file("FHS|^~\\&|SENDER|HERE|KILN|THERE|20260301||||F1\r" + text + "FTS|2\r")
    with hl7.client.MLLPClient("127.0.0.1", port, encoding="utf-8") as client:
        answer = hl7.parse_file(client.send_message(str(file)).decode("utf-8").strip("\x0b\x1c\r"))
    assert str(answer.header[12]) == "F1", answer.header
    assert str(answer.trailer[1]) == "2", answer.trailer
    for batch in answer:
        for message in batch:
            told(message["MSA.F1"], message["MSA.F2"])


if __name__ == "__main__":
    name, port, *files = sys.argv[1:]
    texts = [pathlib.Path(file).read_bytes().decode("utf-8").rstrip("\r\n").replace("\r\n", "\r").replace("\n", "\r") + "\r" for file in files]
    if name == "asyncio":
        asyncio.run(with_asyncio(int(port), texts))
    else:
        {"client": with_client, "hl7apy": with_hl7apy, "batch": with_batch, "file": with_file}[name](int(port), texts)
