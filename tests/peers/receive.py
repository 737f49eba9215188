"""receive.py SERVER [CERTIFICATE KEY]: takes messages with that server, over TLS with a certificate. Prints `port N`, then the control ID
(MSH-10) of each message, and acknowledges each with AA. Ends when it is ended.

`asyncio` is hl7's server; `hl7apy` is hl7apy's, which answers one message and closes the connection.
"""

import asyncio
import ssl
import sys

import hl7
import hl7.mllp


def told(text):
    # In one piece: hl7apy serves each connection in a thread of its own.
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def context(files):
    if not files:
        return None
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(*files)
    return secure


async def with_asyncio(files):
    async def serve(reader, writer):
        try:
            while not writer.is_closing():
                message = await reader.readmessage()
                told(message["MSH.F10"])
                writer.writemessage(message.create_ack())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await hl7.mllp.start_hl7_server(serve, host="127.0.0.1", port=0, encoding="utf-8", ssl=context(files)) as server:
        told(f"port {server.sockets[0].getsockname()[1]}")
        await server.serve_forever()


def with_hl7apy():
    from hl7apy.mllp import AbstractErrorHandler, AbstractHandler, MLLPServer

    class Accept(AbstractHandler):
        def reply(self):
            message = hl7.parse(self.incoming_message)
            told(message["MSH.F10"])
            return f"\x0b{message.create_ack()}\x1c\r"

    class Refuse(AbstractErrorHandler):
        def reply(self):
            return "\x0bMSH|^~\\&|HL7APY\rMSA|AR\r\x1c\r"

    class Everything(dict):
        def __getitem__(self, kind):
            return super().get(kind, (Accept,))

        def __contains__(self, kind):
            return True

    server = MLLPServer("127.0.0.1", 0, Everything({"ERR": (Refuse,)}), timeout=10)
    told(f"port {server.server_address[1]}")
    server.serve_forever()


if __name__ == "__main__":
    name, *certificate = sys.argv[1:]
    if name == "asyncio":
        asyncio.run(with_asyncio(certificate))
    else:
        with_hl7apy()
