"""Enhanced mode with python-hl7: prints `CODE CONTROL-ID` of each acknowledgement that it reads, and accepts application acknowledgements with CA.

    enhanced.py sender PORT                   sends a message that wants both, and reads both from its connection
    enhanced.py listener PORT OWN-PORT        the same, but reads the second one by a listener of its own
"""

import asyncio
import sys

import hl7
import hl7.mllp

MESSAGE = (
    "MSH|^~\\&|PYHL7|HOSP|KILN|HOSP|20260301120000||ADT^A01^ADT_A01|PY1|P|2.5.1|||AL|AL\r"
    "EVN|A01|20260301120000\rPID|1||4711^^^HOSP^MR||Meier^Eva||19700102|F\rPV1|1|I|W1^101^1||||||||||||||||V1\r"
)


async def read(reader):
    answer = await asyncio.wait_for(reader.readmessage(), 20)
    print(answer["MSA.F1"], answer["MSA.F2"], flush=True)
    return answer


async def accept(answer, writer):
    writer.writemessage(answer.create_ack("CA"))
    await writer.drain()


async def sender(port):
    reader, writer = await hl7.mllp.open_hl7_connection("127.0.0.1", port, encoding="utf-8")
    writer.writemessage(hl7.parse(MESSAGE))
    await read(reader)
    await accept(await read(reader), writer)
    writer.close()
    await writer.wait_closed()


async def listener(port, own):
    told = asyncio.Event()

    async def serve(reader, writer):
        await accept(await read(reader), writer)
        told.set()

    async with await hl7.mllp.start_hl7_server(serve, "127.0.0.1", own, encoding="utf-8"):
        reader, writer = await hl7.mllp.open_hl7_connection("127.0.0.1", port, encoding="utf-8")
        writer.writemessage(hl7.parse(MESSAGE))
        await read(reader)
        await asyncio.wait_for(told.wait(), 20)
        writer.close()


if __name__ == "__main__":
    kind, *ports = sys.argv[1:]
    asyncio.run({"sender": sender, "listener": listener}[kind](*map(int, ports)))
