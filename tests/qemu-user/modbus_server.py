"""A Modbus TCP device with fixed values: modbus_server.py PORT. Needs pymodbus. agent.toml reads it; EXPECTED is what must arrive."""

import asyncio
import json
import sys

EXPECTED = {
    "plant/meter/voltage": 231.25,
    "plant/meter/energy": -123456789,
    "plant/meter/total": 81985529216486895,
    "plant/meter/temperature": 23.4,
    "plant/meter/flow": 1.0000000000000002e-3,
}


async def main():
    from pymodbus.server import StartAsyncTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    registers = [
        SimData(0, values=231.25, datatype=DataType.FLOAT32),
        SimData(2, values=-123456789, datatype=DataType.INT32),
        SimData(4, values=81985529216486895, datatype=DataType.UINT64),
        SimData(8, values=234, datatype=DataType.UINT16),
        SimData(9, values=EXPECTED["plant/meter/flow"], datatype=DataType.FLOAT64),
    ]
    await StartAsyncTcpServer(SimDevice(1, simdata=registers), address=("127.0.0.1", int(sys.argv[1])))


if __name__ == "__main__":
    if sys.argv[1:] == ["--expected"]:
        print(json.dumps(EXPECTED))
    else:
        asyncio.run(main())
